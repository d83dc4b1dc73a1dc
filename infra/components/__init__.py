"""The estate's components: one ComponentResource a file, each with a frozen Args dataclass."""
