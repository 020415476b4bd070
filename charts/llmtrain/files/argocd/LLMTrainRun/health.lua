-- Health of an LLMTrainRun, by its conditions. A run that trains is Progressing, as a Job is.
local health = { status = "Progressing", message = "Waiting for the operator." }
local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(type, value)
  return conditions[type] ~= nil and conditions[type].status == value
end

local function said(result, type)
  local condition = conditions[type]
  local message = condition.reason or type
  if condition.message ~= nil and condition.message ~= "" then
    message = message .. ": " .. condition.message
  end
  return { status = result, message = message }
end

if is("Stalled", "True") then return said("Degraded", "Stalled") end
if is("Succeeded", "False") then return said("Degraded", "Succeeded") end
if is("Succeeded", "True") then return said("Healthy", "Succeeded") end
if is("Suspended", "True") then return said("Suspended", "Suspended") end
if is("WorkersReady", "False") then return said("Progressing", "WorkersReady") end
if is("WorkersReady", "True") then
  local progress = status.progress or {}
  local words = status.phase or "Running"
  if progress.summary ~= nil then words = words .. ", step " .. progress.summary end
  if progress.eta ~= nil then words = words .. ", " .. progress.eta .. " left" end
  health.message = words .. "."
end
return health
