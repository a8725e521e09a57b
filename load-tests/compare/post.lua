-- POST for wrk: each thread has a node of its own, and the outcome is one JSON line.

local addresses = {}
for host, port in os.getenv("COMPARE_AT"):gmatch("([^:,]+):(%d+)") do
    addresses[#addresses + 1] = { host = host, port = port }
end

wrk.method = "POST"
wrk.body = os.getenv("COMPARE_BODY")
wrk.headers["Content-Type"] = "application/json"

local threads = 0
function setup(thread)
    local address = addresses[threads % #addresses + 1]
    thread.addr = wrk.lookup(address.host, address.port)[1]
    threads = threads + 1
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"requests":%d,"seconds":%.6f,"failed":%d,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f}\n',
        summary.requests, summary.duration / 1e6, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
