"""The estate's policy pack: rules that read an estate and say what is passed, violated, undecided or not applicable."""
