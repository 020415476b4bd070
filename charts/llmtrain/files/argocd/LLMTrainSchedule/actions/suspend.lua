-- Makes no more runs; those that are there go on.
obj.spec.suspend = true
return obj
