-- wrk's script: posts the bodies 0.body … (n-1).body of a folder in turn and tells what came out as
-- one line of JSON. Arguments after "--": path, folder, n, boundary. Without a folder it asks for
-- the path alone.
local requests = {}

function init(arguments)
  local path, folder, n, boundary = unpack(arguments)
  if folder == nil then
    requests[1] = wrk.format("GET", path)
    return
  end
  wrk.headers["Content-Type"] = "multipart/form-data; boundary=" .. boundary
  for i = 0, tonumber(n) - 1 do
    local file = assert(io.open(folder .. "/" .. i .. ".body", "rb"))
    requests[#requests + 1] = wrk.format("POST", path, nil, file:read("*a"))
    file:close()
  end
end

local sent = 0

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"n": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "bad_statuses": %d, "broken": %d}\n',
    summary.requests,
    summary.duration / 1e6,
    latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.status,
    errors.connect + errors.read + errors.write + errors.timeout
  ))
end
