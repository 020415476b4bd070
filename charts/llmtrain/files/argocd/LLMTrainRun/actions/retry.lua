-- Tries a failed run again, from its last checkpoint and with all of its restarts.
obj.spec.retry = (obj.spec.retry or 0) + 1
return obj
