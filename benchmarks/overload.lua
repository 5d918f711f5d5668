-- wrk's script: posts one body again and again and counts the answers by status, as JSON.
-- Arguments after "--": path, file of the body, boundary.
local threads = {}
local posted

statuses = ""
no_retry_after = 0

function setup(thread)
  threads[#threads + 1] = thread
end

function init(arguments)
  local path, name, boundary = unpack(arguments)
  local file = assert(io.open(name, "rb"))
  wrk.headers["Content-Type"] = "multipart/form-data; boundary=" .. boundary
  posted = wrk.format("POST", path, nil, file:read("*a"))
  file:close()
  counts = {}
end

function request()
  return posted
end

function response(status, headers, _)
  counts[status] = (counts[status] or 0) + 1
  if status == 429 and not tonumber(headers["retry-after"] or headers["Retry-After"]) then
    no_retry_after = no_retry_after + 1
  end
  local parts = {}
  for key, n in pairs(counts) do
    parts[#parts + 1] = key .. "=" .. n
  end
  statuses = table.concat(parts, " ")
end

function done(summary, latency, _)
  local total, missing = {}, 0
  for _, thread in ipairs(threads) do
    for key, n in string.gmatch(thread:get("statuses"), "(%d+)=(%d+)") do
      total[key] = (total[key] or 0) + tonumber(n)
    end
    missing = missing + thread:get("no_retry_after")
  end
  local parts = {}
  for key, n in pairs(total) do
    parts[#parts + 1] = string.format('"%s": %d', key, n)
  end
  local errors = summary.errors
  io.write(string.format(
    '{"statuses": {%s}, "seconds": %.3f, "without_retry_after": %d, "connect_errors": %d, "read_errors": %d, "write_errors": %d, "timeouts": %d}\n',
    table.concat(parts, ", "), summary.duration / 1e6, missing,
    errors.connect, errors.read, errors.write, errors.timeout
  ))
end
