"""Times a cache as the Python manager kept it, and diskcache if it is installed. Prints medians in ns."""

import os
import pickle
import sqlite3
import sys
import time
from datetime import datetime, timedelta

directory = sys.argv[1]
value = os.urandom(2000)
keys = [f"census:acs5:cbsa={n:05}&year=2022" for n in range(1000)]


def median(name, call, count):
    took = []
    for n in range(count):
        started = time.perf_counter_ns()
        call(keys[n % len(keys)])
        took.append(time.perf_counter_ns() - started)
    print(name, sorted(took)[len(took) // 2])


path = os.path.join(directory, "manager.db")


def connect():
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    return connection


with connect() as made:
    made.execute(
        "CREATE TABLE cache (key TEXT PRIMARY KEY, value BLOB, created_at TEXT, expires_at TEXT)"
    )
    made.execute("CREATE INDEX idx_cache_expires ON cache (expires_at)")


def manager_put(key):
    connection = connect()
    now = datetime.now()
    row = (key, pickle.dumps(value), now.isoformat(), (now + timedelta(days=30)).isoformat())
    connection.execute("INSERT OR REPLACE INTO cache VALUES (?, ?, ?, ?)", row)
    connection.commit()
    connection.close()


def manager_get(key):
    connection = connect()
    row = connection.execute("SELECT value, expires_at FROM cache WHERE key = ?", (key,)).fetchone()
    connection.close()
    if datetime.fromisoformat(row[1]) > datetime.now():
        return pickle.loads(row[0])


median("manager_put", manager_put, 1000)
median("manager_get", manager_get, 2000)

try:
    import diskcache
except ImportError:
    sys.exit(0)

cache = diskcache.Cache(os.path.join(directory, "diskcache"))
median("diskcache_put", lambda key: cache.set(key, value), 2000)
median("diskcache_get", cache.get, 5000)
