# SPDX-License-Identifier: MIT
# From meson's testlog.json (one object a line): one line "RESULT<tab>NAME<tab>WHY" for each
# test, and for each numbered test inside a TAP program one of its own.
def tap: [(.stdout // "") | split("\n")[] | select(test("^(not )?ok\\b"))];
def is_tap: (.stdout // "") | test("(^|\n)1\\.\\.[0-9]+");
def verdict: {"OK": "pass", "EXPECTEDFAIL": "pass", "SKIP": "skip"}[.result] // "fail";
def why: ((.stdout // "") | rtrimstr("\n") | split("\n") | last // "") | .[0:200];
def one($result; $name; $why): [$result, $name, ($why | gsub("[\t\r]"; " "))] | join("\t");

.name as $name
| if is_tap and (tap | length) > 0 then
    (tap[] |
      if test("^not ok") and (test("# *TODO"; "i") | not) then one("fail"; $name; .)
      elif test("# *SKIP"; "i") then one("skip"; $name; .)
      else one("pass"; $name; "") end),
    # A program that printed only good lines and still failed: crashed, or left its plan.
    (if verdict == "fail" and ([tap[] | select(test("^not ok"))] | length) == 0
     then one("fail"; $name; "ended with \(.result), status \(.returncode)") else empty end)
  else
    one(verdict; $name; if verdict == "pass" then "" elif verdict == "skip" then why
        else "\(.result), status \(.returncode): \(why)" end)
  end
