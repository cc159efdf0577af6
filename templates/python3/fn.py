# Called once a call. `input` is the body as text, None where there is none; `headers` is a dict, and may be left out.
# What is returned is the answer: text, or (text, status), or (text, status, headers). What is printed is the log.
# Packages that it needs go into a requirements.txt beside this file: the deployment installs them.
def fn(input, headers):
    return "hello " + (input or "nobody") + "\n"
