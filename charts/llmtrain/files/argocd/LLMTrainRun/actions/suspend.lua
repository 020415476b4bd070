-- Stops the pods after a checkpoint, or keeps the run from starting.
obj.spec.suspend = true
return obj
