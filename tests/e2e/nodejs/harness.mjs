// What the cases share. `node FILE.mjs CONNECTION [CASE ...]` runs those of a file, or all of them.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { KurrentDBClient, jsonEvent } from "@kurrent/kurrentdb-client";

export const PATIENCE = 30_000; // milliseconds until a case gives up waiting

export function event(number, more = {}) {
  return jsonEvent({ type: "T", data: { number }, ...more });
}

export function events(count, start = 0) {
  return Array.from({ length: count }, (_, at) => event(start + at));
}

/** At most `count` events of a read or a subscription. */
export async function take(source, count = Infinity) {
  const got = [];
  if (count === 0) return got;
  for await (const resolved of source) {
    got.push(resolved);
    if (got.length >= count) break;
  }
  return got;
}

export function numbers(resolved) {
  return resolved.map(({ event: { data } }) => data.number);
}

/** What `promise` is rejected with; it has to be a `type`. */
export async function refused(promise, type) {
  try {
    await promise;
  } catch (error) {
    assert.equal(error.type, type, error.message);
    return error;
  }
  return assert.fail(`no ${type}`);
}

export async function until(condition) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < end, "it does not come about");
    await new Promise((done) => setTimeout(done, 20));
  }
}

function inTime(work) {
  const late = new Promise((_, fail) => setTimeout(fail, PATIENCE, new Error("it does not end")).unref());
  return Promise.race([work, late]);
}

/** Runs the cases, each with a client and a stream name of its own; prints what each ended with. */
export async function main(cases) {
  const [connection, ...wanted] = process.argv.slice(2);
  for (const name of wanted.length ? wanted : Object.keys(cases)) {
    const client = KurrentDBClient.connectionString(connection);
    let failure = null;
    try {
      await inTime(cases[name](client, `node-client-${randomUUID()}`));
    } catch (error) {
      failure = String(error.stack ?? error);
    }
    console.log(JSON.stringify({ name, failure }));
  }
  process.exit(0); // subscriptions may be open still
}
