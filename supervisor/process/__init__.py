"""The parent's side of every process: zygote, children, reaper, pipes and control groups."""
