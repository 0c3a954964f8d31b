"""`make bench-peers`: other queues, each in a scratch environment, through a driver of ours, beside agentos."""
