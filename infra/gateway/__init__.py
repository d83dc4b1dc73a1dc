"""The gateway's nginx configuration, as text (pure rendering)."""
