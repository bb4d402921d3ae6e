// Appending, reading, catch-up subscriptions, metadata, deletion.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import {
  ANY, BACKWARDS, END, ErrorType, NO_STREAM, START, STREAM_EXISTS,
  binaryEvent, eventTypeFilter, excludeSystemEvents, streamNameFilter,
} from "@kurrent/kurrentdb-client";
import { event, events, main, numbers, refused, take } from "./harness.mjs";

// One event and many go through the same calls here; `credentials` make the client use the other one.
const OTHER_CALL = { credentials: { username: "admin", password: "changeit" } };

async function written(client, stream, count) {
  return client.appendToStream(stream, events(count), { streamState: NO_STREAM });
}

await main({
  async expected_revisions(client, stream) {
    for (const how of [{}, OTHER_CALL]) {
      const name = stream + Object.keys(how).length;
      const first = await client.appendToStream(name, events(2), { streamState: NO_STREAM, ...how });
      assert.equal(first.nextExpectedRevision, 1n);
      const second = await client.appendToStream(name, event(2), { streamState: 1n, ...how });
      assert.equal(second.nextExpectedRevision, 2n);
      assert.ok(second.position.commit > first.position.commit);
      await client.appendToStream(name, event(3), { streamState: STREAM_EXISTS, ...how });
      await client.appendToStream(name, event(4), { streamState: ANY, ...how });
      assert.deepEqual(numbers(await take(client.readStream(name))), [0, 1, 2, 3, 4]);
    }
  },

  async wrong_expected_versions(client, stream) {
    await written(client, stream, 3);
    const wrong = ErrorType.WRONG_EXPECTED_VERSION;
    for (const how of [{}, OTHER_CALL]) {
      for (const streamState of [NO_STREAM, 0n, 7n]) {
        const error = await refused(client.appendToStream(stream, event(9), { streamState, ...how }), wrong);
        assert.equal(error.streamName, stream);
        assert.equal(error.expectedState, streamState);
        assert.equal(error.actualState, 2n);
      }
      const missing = client.appendToStream(`${stream}-none`, event(9), { streamState: STREAM_EXISTS, ...how });
      assert.equal((await refused(missing, wrong)).actualState, NO_STREAM);
    }
    const quiet = await client.appendToStream(stream, event(3), { streamState: 2n });
    assert.equal(quiet.success, true);
  },

  async repetitions(client, stream) {
    for (const how of [{}, OTHER_CALL]) {
      for (const streamState of [NO_STREAM, ANY]) {
        const name = `${stream}-${String(streamState)}-${Object.keys(how).length}`;
        const batch = events(3);
        const first = await client.appendToStream(name, batch, { streamState, ...how });
        assert.deepEqual(await client.appendToStream(name, batch, { streamState, ...how }), first);
        const more = [batch[2], event(9)];
        await refused(client.appendToStream(name, more, { streamState, ...how }), ErrorType.WRONG_EXPECTED_VERSION);
        assert.equal((await take(client.readStream(name))).length, 3);
      }
    }
  },

  async what_was_appended_comes_back(client, stream) {
    const json = event(7, { id: randomUUID(), metadata: { $correlationId: "c" } });
    const binary = binaryEvent({ type: "B ü", data: Buffer.from([0, 255]), metadata: Buffer.from([1, 2]) });
    await client.appendToStream(stream, [json, binary], { streamState: NO_STREAM });
    const [one, two] = (await take(client.readStream(stream))).map(({ event: recorded }) => recorded);
    assert.deepEqual([one.id, one.type, one.isJson, one.revision], [json.id, "T", true, 0n]);
    assert.deepEqual([one.data, one.metadata], [{ number: 7 }, { $correlationId: "c" }]);
    assert.deepEqual([two.id, two.type, two.isJson, two.revision], [binary.id, "B ü", false, 1n]);
    assert.deepEqual([...two.data, ...two.metadata], [0, 255, 1, 2]);
    assert.equal(one.streamId, stream);
    assert.ok(Math.abs(Date.now() - one.created.getTime()) < 3_600_000);
  },

  async too_large_appends(client, stream) {
    const large = binaryEvent({ type: "T", data: Buffer.alloc(1024 * 1024 + 1) });
    for (const how of [{}, OTHER_CALL]) {
      const error = await refused(
        client.appendToStream(stream, large, { streamState: ANY, ...how }),
        ErrorType.MAXIMUM_APPEND_SIZE_EXCEEDED,
      );
      assert.equal(error.maxAppendSize, 1024 * 1024);
    }
  },

  async deadlines(client, stream) {
    const late = client.appendToStream(stream, event(0), { streamState: ANY, deadline: -1000 });
    await refused(late, ErrorType.DEADLINE_EXCEEDED);
    await client.appendToStream(stream, event(1), { streamState: ANY, deadline: 60_000 });
    assert.deepEqual(numbers(await take(client.readStream(stream))), [1]);
  },

  async reading_a_stream(client, stream) {
    await written(client, stream, 300);
    const all = Array.from({ length: 300 }, (_, at) => at);
    const read = async (how) => numbers(await take(client.readStream(stream, how)));
    assert.deepEqual(await read({}), all);
    assert.deepEqual(await read({ fromRevision: 290n }), all.slice(290));
    assert.deepEqual(await read({ fromRevision: START, maxCount: 3 }), [0, 1, 2]);
    assert.deepEqual(await read({ direction: BACKWARDS, fromRevision: END, maxCount: 2 }), [299, 298]);
    assert.deepEqual(await read({ direction: BACKWARDS, fromRevision: 1n }), [1, 0]);
    const missing = await refused(take(client.readStream(`${stream}-none`)), ErrorType.STREAM_NOT_FOUND);
    assert.equal(missing.streamName, `${stream}-none`);
  },

  async reading_all(client, stream) {
    const { position } = await written(client, `${stream}-a`, 3);
    await client.appendToStream(`${stream}-b`, [event(3), event(4, { type: stream })], { streamState: ANY });
    const read = async (how) => numbers(await take(client.readAll(how)));
    const ours = streamNameFilter({ prefixes: [stream] });
    assert.deepEqual(await read({ filter: ours }), [0, 1, 2, 3, 4]);
    assert.deepEqual(await read({ filter: ours, direction: BACKWARDS, fromPosition: END }), [4, 3, 2, 1, 0]);
    assert.deepEqual(await read({ filter: ours, direction: BACKWARDS, fromPosition: END, maxCount: 2 }), [4, 3]);
    assert.deepEqual(await read({ filter: ours, fromPosition: position }), [2, 3, 4]);
    assert.deepEqual(await read({ filter: streamNameFilter({ regex: `^${stream}-b$` }) }), [3, 4]);
    assert.deepEqual(await read({ filter: eventTypeFilter({ prefixes: [stream] }) }), [4]);
    assert.deepEqual(await read({ filter: eventTypeFilter({ regex: `^${stream}$` }), maxCount: 1 }), [4]);
    const [last] = await take(client.readAll({ direction: BACKWARDS, fromPosition: END, maxCount: 1 }));
    assert.equal(last.event.streamId, `${stream}-b`);
    assert.equal(last.event.position.commit, last.commitPosition ?? last.event.position.commit);
  },

  async links_are_resolved(client, stream) {
    await written(client, stream, 2);
    const link = binaryEvent({ type: "$>", data: Buffer.from(`1@${stream}`) });
    await client.appendToStream(`${stream}-links`, link, { streamState: NO_STREAM });
    const [plain] = await take(client.readStream(`${stream}-links`));
    assert.equal(plain.event.type, "$>");
    const [resolved] = await take(client.readStream(`${stream}-links`, { resolveLinkTos: true }));
    assert.deepEqual([resolved.event.streamId, resolved.event.revision], [stream, 1n]);
    assert.equal(resolved.link.id, link.id);
  },

  async following_a_stream(client, stream) {
    await written(client, stream, 3);
    const subscription = client.subscribeToStream(stream, { fromRevision: 0n });
    const caughtUp = new Promise((done) => subscription.once("caughtUp", done));
    const came = take(subscription, 4);
    await caughtUp;
    await client.appendToStream(stream, events(2, 3), { streamState: 2n });
    assert.deepEqual(numbers(await came), [1, 2, 3, 4]);
    await subscription.unsubscribe();
  },

  async following_from_the_end(client, stream) {
    await written(client, stream, 3);
    const subscription = client.subscribeToStream(stream, { fromRevision: END });
    const came = take(subscription, 2);
    await new Promise((done) => subscription.once("caughtUp", done));
    await client.appendToStream(stream, events(2, 3), { streamState: 2n });
    assert.deepEqual(numbers(await came), [3, 4]);
  },

  async following_all_with_a_filter(client, stream) {
    const { position } = await written(client, `${stream}-unwanted`, 40);
    const checkpoints = [];
    const subscription = client.subscribeToAll({
      fromPosition: START,
      filter: streamNameFilter({
        prefixes: [`${stream}-wanted`],
        maxSearchWindow: 10,
        checkpointInterval: 1,
        checkpointReached: (_, at) => checkpoints.push(at.commit),
      }),
    });
    const came = take(subscription, 2);
    await new Promise((done) => subscription.once("caughtUp", done));
    await client.appendToStream(`${stream}-wanted`, events(2), { streamState: ANY });
    assert.deepEqual(numbers(await came), [0, 1]);
    assert.ok(checkpoints.length >= 4);
    assert.deepEqual(checkpoints, checkpoints.toSorted((a, b) => (a < b ? -1 : 1)));
    assert.ok(checkpoints[0] <= position.commit);
  },

  async following_all_without_system_events(client, stream) {
    const { position } = await written(client, stream, 1);
    const filter = excludeSystemEvents();
    const subscription = client.subscribeToAll({ fromPosition: position, filter });
    await client.setStreamMetadata(stream, { maxCount: 5 });
    await client.appendToStream(stream, event(1), { streamState: 0n });
    const came = [];
    for await (const { event: recorded } of subscription) {
      came.push(recorded.type);
      if (recorded.streamId === stream) break;
    }
    assert.ok(came.every((type) => !type.startsWith("$")));
  },

  async metadata(client, stream) {
    await written(client, stream, 5);
    assert.equal((await client.getStreamMetadata(stream)).metadata, undefined);
    const meta = { maxCount: 2, maxAge: 100_000, truncateBefore: 1, acl: { readRoles: ["$all"] }, mine: "x" };
    await client.setStreamMetadata(stream, meta, { streamState: NO_STREAM });
    const { metadata } = await client.getStreamMetadata(stream);
    assert.deepEqual([metadata.maxCount, metadata.maxAge, metadata.truncateBefore], [2, 100_000, 1]);
    assert.equal(metadata.mine, "x");
    assert.deepEqual(numbers(await take(client.readStream(stream))), [3, 4]);
    const wrong = client.setStreamMetadata(stream, {}, { streamState: NO_STREAM });
    await refused(wrong, ErrorType.WRONG_EXPECTED_VERSION);
  },

  async deletion(client, stream) {
    await written(client, stream, 3);
    const wrong = await refused(
      client.deleteStream(stream, { expectedRevision: 7n }), ErrorType.WRONG_EXPECTED_VERSION,
    );
    assert.deepEqual([wrong.streamName, wrong.expectedState, wrong.actualState], [stream, 7n, 2n]);
    assert.ok((await client.deleteStream(stream, { expectedRevision: 2n })).position.commit);
    await refused(take(client.readStream(stream)), ErrorType.STREAM_NOT_FOUND);
    await client.appendToStream(stream, event(3), { streamState: NO_STREAM });
    const [again] = await take(client.readStream(stream));
    assert.equal(again.event.revision, 3n);
    const none = client.deleteStream(`${stream}-none`, { expectedRevision: ANY });
    await refused(none, ErrorType.WRONG_EXPECTED_VERSION);
  },

  async tombstones(client, stream) {
    await written(client, stream, 3);
    const wrong = client.tombstoneStream(stream, { expectedRevision: 7n });
    await refused(wrong, ErrorType.WRONG_EXPECTED_VERSION);
    await client.tombstoneStream(stream, { expectedRevision: 2n });
    const deleted = ErrorType.STREAM_DELETED;
    assert.equal((await refused(take(client.readStream(stream)), deleted)).streamName, stream);
    for (const how of [{}, OTHER_CALL]) {
      const append = client.appendToStream(stream, event(9), { streamState: ANY, ...how });
      assert.equal((await refused(append, deleted)).streamName, stream);
    }
    await refused(client.deleteStream(stream, { expectedRevision: ANY }), deleted);
    await refused(client.tombstoneStream(stream, { expectedRevision: ANY }), deleted);
    await refused(take(client.subscribeToStream(stream), 1), deleted);
  },

  async what_newer_servers_do_is_told_to_be_missing(client, stream) {
    const many = client.multiStreamAppend([{ streamName: stream, events: [event(0)], expectedState: ANY }]);
    await refused(many, ErrorType.UNSUPPORTED);
  },
});
