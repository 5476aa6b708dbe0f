"""How good a picture is, by stated measures."""
