"""The public API: task, runner, checkpoints, idempotency, worker_pool, app, errors."""
