-- Lets the run go on from its last checkpoint.
obj.spec.suspend = false
return obj
