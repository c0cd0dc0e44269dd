-- What `wrk` sends and counts for benchmarks/serving.py: a picture to /enhance, answers by status.
-- Arguments: the file of the picture. Prints one JSON object: statuses (0: broken connections), seconds.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local picture = file:read("*a")
  file:close()
  ready = wrk.format("POST", nil, { ["Content-Type"] = "image/jpeg" }, picture)
  counts = {}
end

function request()
  return ready
end

function response(status)
  counts[status] = (counts[status] or 0) + 1
end

function done(summary, latency, requests)
  local all = { ["0"] = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout }
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("counts")) do
      all[tostring(status)] = (all[tostring(status)] or 0) + count
    end
  end
  local fields = {}
  for status, count in pairs(all) do
    table.insert(fields, string.format('"%s": %d', status, count))
  end
  print(string.format('{"statuses": {%s}, "seconds": %f}', table.concat(fields, ", "), summary.duration / 1e6))
end
