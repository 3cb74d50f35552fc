-- Orthanc: forward the CT series and X-rays of a study to the Wetread node, each state of a series once.
--
-- Results come back into the same study and make it stable again, so two rules keep it from going round for ever:
-- only modalities that the node reads are forwarded (results are SEG, SR, OT, DOC, RTSTRUCT, PR and KO), and each
-- series remembers how many instances it had when it was forwarded. A series that has grown since is forwarded again as
-- a whole.
--
-- Needs the node under the name "wetread" in DicomModalities of Orthanc's configuration.

local NODE = 'wetread'
local READ_BY_THE_NODE = { CT = true, CR = true, DX = true }
-- Orthanc leaves metadata from 1024 on to its users.
local FORWARDED = '5104'

local function get(uri)
  return ParseJson(RestApiGet(uri))
end

function OnStableStudy(studyId, _tags, _metadata)
  local series = {}
  for _, id in pairs(get('/studies/' .. studyId)['Series']) do
    local found = get('/series/' .. id)
    local instances = tostring(#found['Instances'])
    local before = get('/series/' .. id .. '/metadata?expand')[FORWARDED]
    if READ_BY_THE_NODE[found['MainDicomTags']['Modality']] and before ~= instances then
      table.insert(series, { id = id, instances = instances })
    end
  end
  if #series == 0 then
    return
  end

  local resources = {}
  for _, one in ipairs(series) do
    table.insert(resources, one.id)
  end
  -- Asynchronous: the job is kept in Orthanc's database, and is seen (and resubmitted) under /jobs if it fails.
  RestApiPost('/modalities/' .. NODE .. '/store', DumpJson({ Resources = resources, Synchronous = false }, true))
  for _, one in ipairs(series) do
    RestApiPut('/series/' .. one.id .. '/metadata/' .. FORWARDED, one.instances)
  end
  print('wetread: forwarding ' .. #series .. ' series of study ' .. studyId)
end
