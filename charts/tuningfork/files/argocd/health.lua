-- Health of FineTuneJob, ModelVersion and Rollout for Argo CD. One script for the three kinds, because all of them state
-- kstatus conditions: Ready (what the spec asks for is reached), Reconciling, and Stalled (it will not be without a person).
local health = {status = "Progressing", message = "Waiting for the operator"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
-- A status that speaks of an older spec says nothing about this one.
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to see the latest change"
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function holds(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

if status.phase == "Suspended" or status.phase == "Paused" then
  health.status = "Suspended"
elseif holds("Stalled") then
  health.status = "Degraded"
elseif holds("Ready") then
  health.status = "Healthy"
end

health.message = status.message
if health.status == "Degraded" and conditions.Stalled.message ~= nil and conditions.Stalled.message ~= "" then
  health.message = conditions.Stalled.message
end
return health
