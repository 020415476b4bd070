-- Makes runs again, from the next time on.
obj.spec.suspend = false
return obj
