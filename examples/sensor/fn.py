# A sensor's readings in, rolling statistics and an alarm out.
#
# A reading is JSON or key=value pairs; `sensor` names who measured, `value` is a number, `low` and `high` are optional limits:
#
#   tinyfaas invoke sensor --data '{"sensor": "kitchen", "value": 21.5}'
#   coap-client -m post -e 'sensor=kitchen value=61 high=40' coap://localhost/sensor
#
# Back comes JSON over the sensor's last 60 readings. The alarm is "high" or "low" past a limit, and "jump" for a reading more
# than four standard deviations from the mean of those before it. The window is in this handler's memory: deploy it with
# --threads 1, so that every reading reaches the same one.

import json
import threading

WINDOW = 60     # readings that are remembered of a sensor
SENSORS = 1000  # sensors that are remembered; the one that was silent longest is forgotten
SETTLED = 10    # readings before a jump can be told from noise

windows = {}
lock = threading.Lock()


def parse(text):
    text = (text or "").strip()
    if text.startswith("{"):
        reading = json.loads(text)
    else:
        reading = dict(pair.split("=", 1) for pair in text.replace(",", " ").split() if "=" in pair)
    if "value" not in reading:
        raise ValueError('a reading needs a value: {"sensor": "kitchen", "value": 21.5} or sensor=kitchen value=21.5')
    number = lambda key: float(reading[key]) if key in reading else None
    return str(reading.get("sensor", "default"))[:64], number("value"), number("low"), number("high")


def statistics(values):
    mean = sum(values) / len(values)
    return mean, (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5


def fn(input):
    try:
        sensor, value, low, high = parse(input)
    except ValueError as error:
        return str(error), 400
    with lock:
        before = windows.pop(sensor, [])
        windows[sensor] = window = (before + [value])[-WINDOW:]
        if len(windows) > SENSORS:
            del windows[next(iter(windows))]
    alarm = None
    if len(before) >= SETTLED:
        mean, deviation = statistics(before)
        if abs(value - mean) > max(4 * deviation, 1e-9):
            alarm = "jump"
    if high is not None and value > high:
        alarm = "high"
    if low is not None and value < low:
        alarm = "low"
    mean, deviation = statistics(window)
    result = {"sensor": sensor, "value": value, "count": len(window), "mean": round(mean, 3),
              "deviation": round(deviation, 3), "min": min(window), "max": max(window), "alarm": alarm}
    return json.dumps(result) + "\n", 200, {"Content-Type": "application/json"}
