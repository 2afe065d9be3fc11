-- Sends the requests of the file BENCH_REQUESTS one after the other (each preceded by a line with
-- its length), and writes what was counted to BENCH_RESULT.
local requests, turn = {}, 0

function init(args)
  local file = assert(io.open(os.getenv("BENCH_REQUESTS"), "rb"))
  while true do
    local length = file:read("*l")
    if not length then break end
    requests[#requests + 1] = file:read(tonumber(length))
  end
  file:close()
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local file = assert(io.open(os.getenv("BENCH_RESULT"), "w"))
  local errors = summary.errors
  file:write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, ' ..
    '"status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
  file:close()
end
