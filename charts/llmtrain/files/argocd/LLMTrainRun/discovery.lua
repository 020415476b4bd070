-- Which actions fit an LLMTrainRun as it is now.
local finished, failed = false, false
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  if condition.type == "Finished" and condition.status == "True" then finished = true end
  if condition.type == "Succeeded" and condition.status == "False" then failed = true end
end
local suspended = obj.spec.suspend == true
return {
  suspend = { disabled = finished or suspended },
  resume = { disabled = finished or not suspended },
  retry = { disabled = not failed },
}
