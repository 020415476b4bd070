-- Which actions fit an LLMTrainSchedule as it is now.
local suspended = obj.spec.suspend == true
return {
  suspend = { disabled = suspended },
  resume = { disabled = not suspended },
}
