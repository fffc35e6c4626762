"""The page: a local web server that segments an opened file from clicks and boxes."""
