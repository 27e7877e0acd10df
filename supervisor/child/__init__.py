"""The code inside the zygote and its children: importing handlers, running jobs, cleaning up after them."""
