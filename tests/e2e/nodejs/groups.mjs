// Persistent subscriptions to a stream and to $all.

import assert from "node:assert/strict";
import {
  ANY, DISPATCH_TO_SINGLE, END, ErrorType, NO_STREAM, PARK, PINNED, PINNED_BY_CORRELATION, RETRY,
  ROUND_ROBIN, SKIP, START, STOP, UNBOUNDED, binaryEvent, streamNameFilter,
  persistentSubscriptionToAllSettingsFromDefaults as allSettings,
  persistentSubscriptionToStreamSettingsFromDefaults as streamSettings,
} from "@kurrent/kurrentdb-client";
import { event, events, main, numbers, refused, take, until } from "./harness.mjs";

const { PERSISTENT_SUBSCRIPTION_DOES_NOT_EXIST: MISSING, PERSISTENT_SUBSCRIPTION_EXISTS: EXISTS } = ErrorType;
const { PERSISTENT_SUBSCRIPTION_DROPPED: DROPPED, MAXIMUM_SUBSCRIBERS_REACHED: FULL } = ErrorType;
const EAGER = { checkPointLowerBound: 1, checkPointUpperBound: 1 };

/** The calls about a group to a stream and about one to $all, under the same names. */
function toStream(client, stream, group = "g") {
  return {
    source: stream,
    create: (changes = {}) =>
      client.createPersistentSubscriptionToStream(stream, group, streamSettings({ startFrom: START, ...changes })),
    update: (changes = {}) => client.updatePersistentSubscriptionToStream(stream, group, streamSettings(changes)),
    read: (how) => client.subscribeToPersistentSubscriptionToStream(stream, group, how),
    info: () => client.getPersistentSubscriptionToStreamInfo(stream, group),
    list: () => client.listPersistentSubscriptionsToStream(stream),
    replay: (how) => client.replayParkedMessagesToStream(stream, group, how),
    remove: () => client.deletePersistentSubscriptionToStream(stream, group),
  };
}

function toAll(client, stream, group = stream) {
  const filter = streamNameFilter({ prefixes: [stream] });
  return {
    source: "$all",
    create: (changes = {}) =>
      client.createPersistentSubscriptionToAll(group, allSettings({ startFrom: START, ...changes }), { filter }),
    update: (changes = {}) => client.updatePersistentSubscriptionToAll(group, allSettings(changes)),
    read: (how) => client.subscribeToPersistentSubscriptionToAll(group, how),
    info: () => client.getPersistentSubscriptionToAllInfo(group),
    list: () => client.listPersistentSubscriptionsToAll(),
    replay: (how) => client.replayParkedMessagesToAll(group, how),
    remove: () => client.deletePersistentSubscriptionToAll(group),
  };
}

/** A case for a group to a stream, and for one to $all. */
function both(scenario) {
  return async (client, stream) => {
    for (const [kind, make] of [["s", toStream], ["a", toAll]]) {
      await scenario(make(client, `${stream}-${kind}`), client, `${stream}-${kind}`);
    }
  };
}

/** Reads a group; `given(count)` is what came since, `failed` what the subscription ended with. */
function reader(subscription) {
  const waiting = [];
  let wake = () => {};
  let fail;
  const failed = new Promise((done) => (fail = done));
  subscription.on("data", (resolved) => (waiting.push(resolved), wake()));
  subscription.on("error", fail);
  const given = async (count) => {
    while (waiting.length < count) await new Promise((done) => (wake = done));
    return waiting.splice(0, count);
  };
  return { subscription, given, failed, waiting };
}

async function settled(group) {
  await until(async () => (await group.info()).stats.totalInFlightMessages === 0);
}

const cases = {
  creating_and_deleting: both(async (group) => {
    await group.create();
    const error = await refused(group.create(), EXISTS);
    assert.equal(error.streamName, group.source);
    await group.remove();
    for (const call of ["info", "update", "remove", "replay"]) {
      const missing = await refused(group[call](), MISSING);
      assert.equal(missing.streamName, group.source, call);
    }
    assert.equal((await reader(group.read()).failed).type, MISSING);
  }),

  settings_are_kept_and_changed: both(async (group) => {
    const mine = {
      resolveLinkTos: true, extraStatistics: true, messageTimeout: 12_345, maxRetryCount: 3,
      checkPointAfter: 1_500, checkPointLowerBound: 2, checkPointUpperBound: 9, maxSubscriberCount: 4,
      liveBufferSize: 300, readBatchSize: 30, historyBufferSize: 301, consumerStrategyName: PINNED,
    };
    await group.create(mine);
    assert.deepEqual((await group.info()).settings, { ...mine, startFrom: START });
    const others = { ...mine, messageTimeout: 5_000, maxSubscriberCount: UNBOUNDED, consumerStrategyName: ROUND_ROBIN };
    await group.update({ ...others, startFrom: START });
    assert.deepEqual((await group.info()).settings, { ...others, startFrom: START });
    await group.remove();
  }),

  strategies: both(async (group) => {
    for (const consumerStrategyName of [DISPATCH_TO_SINGLE, ROUND_ROBIN, PINNED, PINNED_BY_CORRELATION]) {
      await group.create({ consumerStrategyName });
      assert.equal((await group.info()).settings.consumerStrategyName, consumerStrategyName);
      await group.remove();
    }
  }),

  reading_and_acknowledging: both(async (group, client, stream) => {
    await client.appendToStream(stream, events(5), { streamState: NO_STREAM });
    await group.create(EAGER);
    const first = reader(group.read());
    const came = await first.given(5);
    assert.deepEqual(numbers(came), [0, 1, 2, 3, 4]);
    assert.deepEqual(came.map(({ retryCount }) => retryCount), [0, 0, 0, 0, 0]);
    await first.subscription.ack(...came);
    await settled(group);
    await first.subscription.unsubscribe();
    await client.appendToStream(stream, event(5), { streamState: 4n });
    const second = reader(group.read());
    assert.deepEqual(numbers(await second.given(1)), [5]);
    await second.subscription.unsubscribe();
    await group.remove();
  }),

  no_more_than_the_buffer_is_in_flight: both(async (group, client, stream) => {
    await client.appendToStream(stream, events(9), { streamState: NO_STREAM });
    await group.create();
    const { given, waiting, subscription } = reader(group.read({ bufferSize: 3 }));
    const came = await given(3);
    assert.equal((await group.info()).stats.totalInFlightMessages, 3);
    assert.equal(waiting.length, 0);
    await subscription.ack(came[0]);
    assert.deepEqual(numbers(await given(1)), [3]);
    await group.remove();
  }),

  figures: both(async (group, client, stream) => {
    const { position } = await client.appendToStream(stream, events(4), { streamState: NO_STREAM });
    await group.create(EAGER);
    const before = (await group.info()).stats;
    assert.equal(before.lastCheckpointedEventRevision ?? before.lastCheckpointedEventPosition, undefined);
    const one = reader(group.read({ bufferSize: 10, credentials: { username: "admin", password: "changeit" } }));
    await one.subscription.ack(...(await one.given(4)));
    await settled(group);
    const { connections, stats, status } = await until(async () => {
      const info = await group.info();
      return (info.stats.lastCheckpointedEventRevision ?? info.stats.lastCheckpointedEventPosition) && info;
    });
    assert.equal(status, "Live");
    assert.equal(stats.totalItems, 4n);
    assert.equal(connections.length, 1);
    const [connection] = connections;
    assert.deepEqual([connection.totalItems, connection.inFlightMessages, connection.availableSlots], [4n, 0, 10]);
    assert.equal(connection.connectionName, client.connectionName);
    assert.match(connection.from, /:\d+$/);
    assert.ok(["admin", "anonymous"].includes(connection.username)); // servers without users forget the name
    assert.ok((stats.lastKnownEventRevision ?? stats.lastKnownEventPosition.commit) >= 3n);
    const reached = stats.lastKnownEventPosition?.commit ?? position.commit;
    assert.ok(reached >= position.commit);
    await one.subscription.unsubscribe();
    await until(async () => (await group.info()).connections.length === 0);
    await group.remove();
  }),

  negative_acknowledgements: both(async (group, client, stream) => {
    await client.appendToStream(stream, events(3), { streamState: NO_STREAM });
    await group.create({ maxRetryCount: 5 });
    const { given, subscription } = reader(group.read());
    const [zero, one, two] = await given(3);
    await subscription.nack(RETRY, "again", zero);
    const [again] = await given(1);
    assert.deepEqual([again.event.data.number, again.retryCount], [0, 1]);
    await subscription.nack(SKIP, "no", again);
    await subscription.nack(PARK, "later", one, two);
    await until(async () => (await group.info()).stats.parkedMessageCount === 2n);
    await settled(group);
    await group.remove();
  }),

  a_stop_does_not_drop_the_consumer: both(async (group, client, stream) => {
    await client.appendToStream(stream, events(1), { streamState: NO_STREAM });
    await group.create();
    const { given, subscription } = reader(group.read());
    await subscription.nack(STOP, "enough", ...(await given(1)));
    await client.appendToStream(stream, event(1), { streamState: 0n });
    assert.deepEqual(numbers(await given(1)), [1]);
    await group.remove();
  }),

  parked_messages_are_replayed: both(async (group, client, stream) => {
    await client.appendToStream(stream, events(3), { streamState: NO_STREAM });
    await group.create();
    const { given, subscription } = reader(group.read());
    await subscription.nack(PARK, "later", ...(await given(3)));
    await until(async () => (await group.info()).stats.parkedMessageCount === 3n);
    await group.replay({ stopAt: 2 });
    const some = await given(2);
    assert.deepEqual(numbers(some), [0, 1]);
    await subscription.ack(...some);
    await until(async () => (await group.info()).stats.parkedMessageCount === 1n);
    await group.replay();
    const rest = await given(1);
    assert.deepEqual(numbers(rest), [2]);
    await subscription.ack(...rest);
    await until(async () => (await group.info()).stats.parkedMessageCount === 0n);
    await group.remove();
  }),

  what_is_not_acknowledged_in_time_comes_again: both(async (group, client, stream) => {
    await client.appendToStream(stream, events(2), { streamState: NO_STREAM });
    await group.create({ messageTimeout: 300 });
    const { given } = reader(group.read());
    const came = await given(4);
    assert.deepEqual(numbers(came), [0, 1, 0, 1]);
    assert.deepEqual(came.map(({ retryCount }) => retryCount), [0, 0, 1, 1]);
    await group.remove();
  }),

  a_full_group_admits_nobody: both(async (group) => {
    await group.create({ maxSubscriberCount: 1 });
    const first = reader(group.read());
    await new Promise((done) => first.subscription.once("confirmation", done));
    const error = await reader(group.read()).failed;
    assert.deepEqual([error.type, error.streamName], [FULL, group.source]);
    await group.remove();
    assert.equal((await first.failed).type, DROPPED);
  }),

  an_update_keeps_place_and_filter: both(async (group, client, stream) => {
    await client.appendToStream(stream, events(3), { streamState: NO_STREAM });
    await group.create(EAGER);
    const first = reader(group.read());
    await first.subscription.ack(...(await first.given(3)));
    await settled(group);
    await group.update({ messageTimeout: 9_000, startFrom: END }); // what its defaults say
    assert.equal((await first.failed).type, DROPPED);
    await client.appendToStream(`other-${stream}`, event(9), { streamState: ANY });
    await client.appendToStream(stream, event(3), { streamState: 2n });
    const second = reader(group.read());
    assert.deepEqual(numbers(await second.given(1)), [3]);
    await group.remove();
  }),

  links_are_resolved_and_acknowledged: both(async (group, client, stream) => {
    await client.appendToStream(`other-${stream}`, events(2), { streamState: NO_STREAM });
    const link = (at) => binaryEvent({ type: "$>", data: Buffer.from(`${at}@other-${stream}`) });
    await client.appendToStream(stream, [link(1), link(0)], { streamState: NO_STREAM });
    await group.create({ resolveLinkTos: true });
    const { given, subscription } = reader(group.read());
    const came = await given(2);
    assert.deepEqual(numbers(came), [1, 0]);
    assert.deepEqual(came.map((one) => one.link.streamId), [stream, stream]);
    await subscription.ack(...came);
    await settled(group);
    await group.remove();
  }),

  listing: both(async (group, client) => {
    await group.create();
    const named = (found) => found.filter(({ eventSource }) => eventSource === group.source).length;
    assert.ok(named(await group.list()) >= 1);
    assert.ok(named(await client.listAllPersistentSubscriptions()) >= 1);
    await group.remove();
    if (group.source !== "$all") await refused(group.list(), MISSING);
  }),

  restarting_the_subsystem: async (client, stream) => {
    const group = toStream(client, stream);
    await group.create();
    await client.restartPersistentSubscriptionSubsystem();
    await until(() => group.info().catch(() => undefined)); // it is away for a moment
    await group.remove();
  },
};

await main(cases);
