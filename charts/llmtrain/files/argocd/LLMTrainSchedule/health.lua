-- Health of an LLMTrainSchedule, by its conditions. A suspended one is Healthy, as a CronJob is.
local health = { status = "Progressing", message = "Waiting for the operator." }
local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function said(result, type)
  local condition = conditions[type]
  local message = condition.reason or type
  if condition.message ~= nil and condition.message ~= "" then
    message = message .. ": " .. condition.message
  end
  return { status = result, message = message }
end

if (conditions.Stalled or {}).status == "True" then return said("Degraded", "Stalled") end
if (conditions.Ready or {}).status == "True" then return said("Healthy", "Ready") end
if conditions.Ready ~= nil then return said("Progressing", "Ready") end
return health
