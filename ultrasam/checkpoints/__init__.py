"""Reading and writing of weight files: formats, safe loading, cards."""
