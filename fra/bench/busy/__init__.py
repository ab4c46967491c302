"""What other work on the machine costs."""
