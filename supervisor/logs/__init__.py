"""What the program writes about itself, and how it leaves."""
