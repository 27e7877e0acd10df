"""The running program seen and steered from outside: its socket, its local address, and the commands that ask there."""
