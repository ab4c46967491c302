"""How time and memory of stages and commands grow with the number of images or rows."""
