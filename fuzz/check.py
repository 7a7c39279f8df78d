#!/usr/bin/env python3
"""check.py STORE: is the store as FORMAT.md says? Exits with 0 if it is whole, 1 at the first damage. Shares no code with annals."""
import json, os, re, sys, zlib
N, ID, T, VALUE = "[1-9][0-9]{0,15}", "[0-9a-f]{32}", r"-?(?:0|[1-9][0-9]{0,9})\.[0-9]{6}", r',"(?:val|txt|b64)":[^\x00-\x1f]+'
S, Z, FROM = r'"(?:[^\x00-\x1f"\\]|\\["\\bfnrt]|\\u00[01][0-9a-f])*"', f"(?:0|{N})", rf'"from":\[{N}(?:,{N})*\]'
KEY = f',(?:"key":{S}|"k64":"' + '(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?")'
LINE = re.compile((r"\{(?:" + "|".join([  # header, record, mark, footer, and the head of MANIFEST
    f'"annals":1,"store":"{ID}","segment":{N}(?:,"first":{N}(?:,{FROM})?|,{FROM},"compacted":true,"order":"(?:key|seq)")',
    f'"seq":{N}(?:,"dur":{Z})?(?:,"more":true)?(?:{KEY},"del":true|{KEY}(?:,"exp":{T})?{VALUE}|,"ser":{S},"at":{T}{VALUE})',
    f'"dur":{Z},"now":{T}', f'"sealed":{N},"first":{N},"last":{N},"records":{N},"bytes":{Z},"crc":"[0-9a-f]{{8}}"',
    f'"annals":1,"store":"{ID}","generation":{N},"segments":{Z}(?:,"open":{N})?,"next":{N},"seq":{N},"history":{N},"clock":{T}']) + r")\} [0-9a-f]{8}\n").encode())
def need(ok, why): return ok or sys.exit("DAMAGED: %s at offset %d: %s" % (*at, why))
def read(path):  # each line, and its fields but the value: none if it is not valid; at says where it is
    at[:] = path, 0
    need(os.path.isfile(path), "the file is missing")
    for line in open(path, "rb"):
        valid = LINE.fullmatch(line) and zlib.crc32(line[:-10]) == int(line[-9:], 16)
        yield line, json.loads(re.sub(rb',"(?:val|txt|b64)":.*', b"}", line[:-10]).decode("latin-1")) if valid else {}
        at[1] += len(line)
def segment(path, store, n, footer):  # footer is the one in MANIFEST, None for the open segment, which may end anyhow
    head, low, high, count, crc, more, last, end, whole = {}, 1 << 53, 0, 0, 0, False, "", 0, 0
    for line, f in read(path):
        kind, gaps = next(iter(f), "bad"), "compacted" in head
        fits = {"annals": not head and f.get("segment") == n and f.get("store") == store, "dur": head and not more and not gaps,
                "seq": head and (gaps or f.get("seq") == head["first"] + count), "bad": False,
                "sealed": not more and footer in (None, f) and [*f.values()] == [n, low, high, count, at[1], "%08x" % crc]}
        if not fits[kind] or last == "sealed": break
        if kind == "seq": low, high, count = min(low, f["seq"]), max(high, f["seq"]), count + 1
        head, last, more, crc = head or f, kind, "more" in f and not gaps, zlib.crc32(line, crc)
        if not more: end, whole = at[1] + len(line), count
    need(head and (not footer or last == "sealed" and end == os.path.getsize(path)), "a line is bad or does not belong here")
    if tail := open(path, "rb").read()[end:].strip(b"\n"): print("%s: torn tail of %d bytes at offset %d, which is no damage" % (path, len(tail), end))
    return whole
store, at = sys.argv[1], ["", 0]
head, *footers = [need(f, "not a valid line") for _, f in read(store + "/MANIFEST")] or [{}]
names, top = [f.get("sealed", 0) for f in footers], head.get("open", 0)
need("generation" in head and len(names) == head["segments"] and names == sorted({*names} - {0, top}) and max(names + [top]) < head["next"]
     and max([f["last"] + 1 for f in footers] + [head["history"]]) <= head["seq"], "MANIFEST contradicts itself")
listed = [*zip(names, footers)] + [(top, None)] * ("open" in head)
print("whole, with %d records" % sum(segment("%s/%020d.log" % (store, n), head["store"], n, f) for n, f in listed))
