"""What a grid will take before it is run: jobs, work, seconds, memory, disk, judge calls. No torch here."""
