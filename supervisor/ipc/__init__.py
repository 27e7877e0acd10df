"""Messages between the parent, the zygote and the children, and how they travel over pipes."""
