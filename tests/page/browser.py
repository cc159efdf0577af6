"""Uses the status page in a headless Chromium as a person would: browser.py MANAGEMENT HTTP FOLDER [TOKEN].

FOLDER is for files that are deployed. With TINYFAAS_SHOTS=DIR each stage leaves a picture there, to be looked at.
Every stage prints its name when it is done; what is wrong is an exception.
"""

import base64
import glob
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
import zipfile

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 120
EVIL = "<script>window.evil = 1</script><img src=x onerror=window.evil=1>"
FUNCTION = f"""import sys
def fn(input):
    print({EVIL!r}, input, file=sys.stderr, flush=True)
    if input == "fail":
        raise ValueError({EVIL!r})
    return {EVIL!r} + (input or "")
"""
AXE = os.path.join(glob.glob(sys.prefix + "/lib/python*/site-packages")[0], "axe_playwright_python/axe.min.js")
VIOLATIONS = """window.violations = [];
addEventListener('securitypolicyviolation', e => violations.push(`${e.violatedDirective} ${e.blockedURI} ${e.sample}`));"""


class Page:
    def __init__(self, management, http, folder):
        self.url, self.http, self.folder = f"http://{management}/", f"http://{http}/", folder
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        # Its sandbox needs what root in a container has not; it shows our own page alone.
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
            options.add_argument(flag)
        options.add_argument("--window-size=1280,900")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.driver.set_script_timeout(PATIENCE)
        self.tell("Page.addScriptToEvaluateOnNewDocument", source=VIOLATIONS)
        self.scheme("light")

    def tell(self, command, **args):
        return self.driver.execute_cdp_cmd(command, args)

    def run(self, script, *args):
        return self.driver.execute_script(script, *args)

    def open(self):
        self.driver.get(self.url)

    def scheme(self, name):
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def size(self, width, height=900):
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def until(self, what, check):
        try:
            return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: check())
        except Exception as e:
            self.shot("failed")
            seen = self.run("return document.body.innerText")
            raise AssertionError(f"waited in vain for {what}; the page says:\n{seen}\n{self.console()}") from e

    def until_text(self, selector, part):
        self.until(f"{part!r} in {selector}", lambda: part in self.text(selector))

    def focused(self):
        return self.run("return document.activeElement.id || document.activeElement.className")

    def press(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab(self):
        """From one element to the next, as the browser orders them."""
        for kind in ("rawKeyDown", "keyUp"):
            self.tell("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def shot(self, name):
        folder = os.environ.get("TINYFAAS_SHOTS")
        if folder:
            width, height = self.run("return [innerWidth, Math.max(innerHeight, document.documentElement.scrollHeight)]")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            picture = self.tell("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
            with open(os.path.join(folder, name + ".png"), "wb") as file:
                file.write(base64.b64decode(picture["data"]))

    def console(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def look(self, name):
        """No barriers, light and dark, wide and on a phone; nothing to scroll sideways to."""
        with open(AXE, encoding="utf-8") as file:
            axe = file.read()
        for scheme in ("light", "dark"):
            for width in (1280, 320):
                self.scheme(scheme)
                self.size(width)
                wide = self.run("return document.documentElement.scrollWidth")
                assert wide <= width, f"{name}: {wide} pixels wide where there are {width}"
                self.shot(f"{name}-{scheme}-{width}")
                if not self.run("return !!window.axe"):
                    self.run(axe)
                found = self.driver.execute_async_script("const done = arguments[0]; axe.run(document).then(done, e => done({error: String(e)}))")
                assert "error" not in found, found
                # It looked at colours as well, and finished.
                passed = {rule["id"] for rule in found["passes"]}
                assert {"color-contrast", "region"} <= passed, passed
                wrong = [(rule["id"], rule["help"], [n["target"] for n in rule["nodes"]]) for rule in found["violations"]]
                assert not wrong, f"{name}, {scheme}, {width}: {wrong}"
        self.scheme("light")
        self.size(1280)

    def drop(self, *paths):
        """What a person drags from a folder's window, by the browser's own way."""
        place = self.run("const r = document.getElementById('drop').getBoundingClientRect(); return [r.x + 20, r.y + 20]")
        data = {"items": [], "files": list(paths), "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.tell("Input.dispatchDragEvent", type=kind, x=place[0], y=place[1], data=data)

    def post(self, name, body):
        try:
            with urllib.request.urlopen(self.http + name, data=body) as answer:
                return answer.read()
        except urllib.error.HTTPError as e:
            return e.read()

    def manage(self, method, path, body=None, **fields):
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers, method=method)) as answer:
            return answer.read()

    def call(self, body, expected):
        self.find("#body").clear()
        self.find("#body").send_keys(body)
        self.find("#body").send_keys(Keys.TAB, Keys.ENTER)
        self.until_text("#status", expected)

    def hide(self, hidden):
        """As where another tab is looked at."""
        if hidden:
            self.run("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        else:
            self.run("delete document.hidden")
        self.run("document.dispatchEvent(new Event('visibilitychange'))")

    def nothing_ran(self):
        assert self.run("return window.evil") is None
        assert self.run("return document.scripts.length + document.images.length") == 1


def put(folder, path, content):
    path = os.path.join(folder, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
    return path


def use(page):
    page.open()
    page.until_text("#linked", "live")
    assert page.find("#none").is_displayed() and not page.find("#table").is_displayed()
    page.look("none")
    print("none is deployed")

    # A folder, with a folder in it, from drop to deployment by keys alone.
    put(page.folder, "evil/fn.py", "from inner.part import fn\n")
    put(page.folder, "evil/inner/__init__.py", "")
    put(page.folder, "evil/inner/part.py", FUNCTION)
    page.drop(os.path.join(page.folder, "evil"))
    page.until_text("#chosen", "evil/")
    assert page.run("return document.getElementById('name').value") == "evil"
    page.until("the focus", lambda: page.focused() == "threads")
    page.tab()
    page.press(Keys.ENTER)
    page.until_text("#result", "evil was deployed.")
    page.until("its row", lambda: page.text("#f-evil .open") == "evil")
    assert page.post("evil", b"!") == (EVIL + "!").encode()
    print("a folder is dropped and deployed")

    archive = os.path.join(page.folder, "my-echo.zip")
    with zipfile.ZipFile(archive, "w") as zip:
        zip.writestr("fn.sh", "cat\n")
    page.find("#files").send_keys(archive)
    page.until("the name", lambda: page.run("return document.getElementById('name').value") == "myecho")
    page.run("document.getElementById('threads').value = 2")
    page.find("#deploy .main").click()
    page.until_text("#result", "myecho was deployed.")
    page.until_text("#rows", "myecho")
    assert page.post("myecho", b"hello") == b"hello"
    page.find("#deploy .main").click()
    broken = put(page.folder, "fn.py", "this is no Python\n")
    page.find("#files").send_keys(broken)
    page.find("#name").send_keys("broken")
    page.find("#deploy .main").click()
    page.until_text("#told", "SyntaxError")
    assert "bad" in page.find("#result").get_attribute("class")
    print("an archive is chosen and deployed; what is wrong is told")

    page.find("#f-evil .open").send_keys(Keys.ENTER)
    page.until("the panel", lambda: page.find("#panel").is_displayed())
    assert page.find("#f-evil .open").get_attribute("aria-expanded") == "true"
    page.call("hello", "200 OK")
    assert page.text("#answer") == EVIL + "hello", page.text("#answer")
    page.until_text("#log", EVIL)
    page.call("fail", "500")
    assert EVIL in page.text("#answer")
    page.until_text("#errors", EVIL)
    page.nothing_ran()
    # What is written without the page's doing comes too, and goes on when the page is seen again.
    page.post("evil", b"from elsewhere")
    page.until_text("#log", EVIL + " from elsewhere")
    page.hide(True)
    page.post("evil", b"unseen")
    page.hide(False)
    page.until_text("#log", EVIL + " unseen")
    page.find("#path").send_keys("/../../delete")
    page.call("x", "may not lead out")
    page.find("#path").clear()
    page.look("panel")
    print("it is called, and its answer, its log and its error are text")

    # More than is shown, and an answer that goes on for ever: the page takes its part of it.
    page.find("#f-myecho .open").click()
    page.run("document.getElementById('body').value = 'x'.repeat(200000)")
    page.find("#call .main").click()
    page.until_text("#status", "that is not shown")
    assert page.run("return document.getElementById('answer').textContent.length") == 65536
    page.until_text("#lines", "Nothing was written")
    assert page.text("#log") == ""
    print("of a long answer the start is shown")

    def numbers():
        for _ in range(20):
            page.post("myecho", b"x")
        row = [cell.text for cell in page.driver.find_elements(By.CSS_SELECTOR, "#f-myecho td")]
        return row[0] == "2" and row[1] not in ("–", "0") and all("s" in cell for cell in row[2:4]) and "MiB" in row[4]

    page.until("numbers that live", numbers)
    page.until("the sums", lambda: page.text("#functions") == "2" and page.text("#rate") not in ("–", "0") and "s / " in page.text("#took"))
    page.until_text("#up", "3 of 3 handlers up")
    page.until_text("#memory", "MiB")
    assert page.run("return document.querySelector('#spark polyline').getAttribute('points')")
    print("numbers live")

    page.hide(True)
    assert page.text("#linked") == "paused"
    # What was under way when it was hidden is over soon.
    asked = """const done = arguments[0];
        setTimeout(() => performance.clearResourceTimings(), 1000);
        setTimeout(() => done(performance.getEntriesByType('resource').map(e => e.name)), 5000);"""
    page.post("myecho", b"x")
    assert page.driver.execute_async_script(asked) == []
    page.hide(False)
    page.until_text("#linked", "live")
    assert page.run("return performance.getEntriesByType('resource').length") > 0
    print("a page that is not seen asks nothing")

    # By keys alone: the order is that of the page, and a question that is refused changes nothing.
    assert page.run("return document.querySelector('a, button, input, select, textarea, [tabindex]').className") == "skip"
    page.run("document.querySelector('.skip').focus()")
    expected = "open open method path body main answer delete files name env threads main".split()
    order = []
    for _ in expected:
        page.tab()
        order.append(page.focused())
    assert order == expected, order
    delete = page.find("#delete")
    delete.send_keys(Keys.ENTER)
    page.until("the question", lambda: page.find("#sure").is_displayed())
    assert page.focused() == "no"
    page.look("question")
    page.press(Keys.ESCAPE)
    page.until("no question", lambda: not page.find("#sure").is_displayed())
    assert page.focused() == "delete" and page.post("myecho", b"x") == b"x"
    delete.send_keys(Keys.ENTER)
    page.tab()
    assert page.focused() == "yes"
    page.press(Keys.ENTER)
    page.until_text("#gone", "myecho was deleted.")
    page.until("its row to go", lambda: not page.driver.find_elements(By.ID, "f-myecho"))
    assert page.focused() == "deployed" and not page.find("#panel").is_displayed()
    assert b"no function named" in page.post("myecho", b"x")
    print("it is deleted by keys alone, after a question")

    # What the page cannot keep of the former version it asks about; what it can, it keeps.
    with open(archive, "rb") as file:
        zip = file.read()
    digest = hashlib.sha256(b"sensor").hexdigest()
    page.manage("PUT", f"functions/guarded?memory=48Mi&idle=1h&auth={digest}", zip, X_Tinyfaas_Env="KEY=value")
    page.until("its row", lambda: page.driver.find_elements(By.ID, "f-guarded"))
    page.find("#f-guarded .open").click()
    page.call("x", "401")
    page.find("#auth").send_keys("sensor")
    page.call("x", "200 OK")
    print("a function that wants a token gets its own")
    page.run("document.getElementById('deploy').reset()")
    page.find("#files").send_keys(archive)
    page.find("#name").clear()
    page.find("#name").send_keys("guarded")
    assert "Takes the place of guarded" in page.text("#replaces")
    page.find("#deploy .main").click()
    page.until("the question", lambda: page.find("#sure").is_displayed())
    assert "KEY" in page.text("#consequence") and "its tokens" in page.text("#consequence")
    page.find("#no").click()
    was = json.loads(page.manage("GET", "functions/guarded"))
    assert was["auth"] == 1 and was["envs"] == ["KEY"]
    page.find("#deploy .main").click()
    page.until("the question", lambda: page.find("#sure").is_displayed())
    page.find("#yes").click()
    page.until_text("#result", "guarded was deployed.")
    now = json.loads(page.manage("GET", "functions/guarded"))
    assert (now["auth"], now["envs"]) == (0, []) and (now["limits"], now["idle"]) == (was["limits"], "1h"), now
    page.manage("DELETE", "functions/guarded")
    page.until("its row to go", lambda: not page.driver.find_elements(By.ID, "f-guarded"))
    assert not page.find("#panel").is_displayed()
    print("what would be lost is asked about, the rest is kept")

    # Names as long as they may be.
    page.run("document.getElementById('deploy').reset()")
    page.find("#files").send_keys(archive)
    page.find("#name").clear()
    page.find("#name").send_keys("W" * 63)
    page.find("#deploy .main").click()
    page.until_text("#result", "was deployed.")
    page.until("its row", lambda: page.driver.find_elements(By.ID, "f-" + "W" * 63))
    page.find(f"#f-{'W' * 63} .open").click()
    page.look("long")
    print("the longest name has room")

    assert page.run("return violations") == []
    page.nothing_ran()
    # What functions are refused is told by the browser too; nothing else is.
    unexpected = [text for text in page.console() if "Failed to load resource: the server responded with a status of 422" not in text]
    assert not unexpected, unexpected
    print("the browser has nothing to complain of")

    # That the policy holds can be seen: this is what must not happen.
    for script in ("document.body.append(Object.assign(document.createElement('img'), {src: '/x.png'}))",
                   "const s = document.createElement('script'); try { s.textContent = 'window.evil = 1' } catch {} document.body.append(s)",
                   "try { document.body.innerHTML = '<b>' } catch {}", "const s = document.createElement('script'); try { s.src = '/x.js' } catch {} document.body.append(s)"):
        page.run(script)
    page.until("the policy", lambda: len(page.run("return violations")) >= 4)
    assert page.run("return window.evil") is None and page.find("#tiles").is_displayed()
    print("the policy holds")


def use_with_token(page, token):
    page.open()
    page.until("the question", lambda: page.find("#login").is_displayed())
    assert not page.find("#board").is_displayed() and page.focused() == "token"
    page.look("token")
    page.press("wrong", Keys.ENTER)
    page.until_text("#refused", "does not know that token")
    page.press(token, Keys.ENTER)
    page.until_text("#linked", "live")
    assert page.find("#board").is_displayed() and not page.find("#login").is_displayed()
    assert token in page.run("return Object.values({...sessionStorage}).join()")
    assert page.run("return localStorage.length + document.cookie.length") == 0
    assert token not in page.driver.page_source
    print("it asks for a token")

    page.driver.refresh()
    page.until_text("#linked", "live")
    own = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open()
    page.until("the question", lambda: page.find("#login").is_displayed())
    page.driver.close()
    page.driver.switch_to.window(own)
    print("the tab keeps it, and it alone")

    put(page.folder, "f/fn.sh", "env\n")
    page.drop(os.path.join(page.folder, "f"))
    page.until("the name", lambda: page.run("return document.getElementById('name').value") == "f")
    page.find("#deploy .main").click()
    page.until_text("#result", "f was deployed.")
    page.until("its row", lambda: page.driver.find_elements(By.ID, "f-f"))
    page.find("#f-f .open").click()
    page.call("x", "200 OK")
    assert token not in page.text("#answer"), page.text("#answer")
    page.find("#delete").click()
    page.find("#yes").click()
    page.until_text("#gone", "f was deleted.")
    print("what it does it does with the token, and a function never sees it")

    page.find("#forget").click()
    page.until("the question", lambda: page.find("#login").is_displayed())
    assert page.run("return sessionStorage.length") == 0
    page.driver.refresh()
    page.until("the question", lambda: page.find("#login").is_displayed())
    assert page.run("return violations") == []
    unexpected = [text for text in page.console() if "the server responded with a status of 401" not in text]
    assert not unexpected, unexpected
    print("it forgets the token")


def main():
    management, http, folder, *token = sys.argv[1:]
    page = Page(management, http, folder)
    try:
        use_with_token(page, token[0]) if token else use(page)
    except Exception:
        page.shot("failed")
        raise
    finally:
        page.driver.quit()
    print("all well")


main()
