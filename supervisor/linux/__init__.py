"""Linux system calls and kernel features that Python lacks, without an event loop.  Used in every process."""
