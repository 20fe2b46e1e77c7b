// The pure parts: heartbeat decision in virtual time, back-off, close codes, plaintext rule, back-pressure.

import { expect } from 'chai';
import fc from 'fast-check';
import { backoffMs, spreadMs } from '../../src/flow/backoff.js';
import { closeCodeOf, errorOfCloseCode, isChannelErrorCode } from '../../src/channel/wire/close-codes.js';
import { startHeartbeat, step, tickAheadMs, type HeartbeatEvent } from '../../src/channel/link/heartbeat.js';
import { Outbox } from '../../src/channel/link/outbox.js';
import { checkPlaintext, isLoopback } from '../../src/channel/credentials/security.js';

/** Feeds events, returns the kinds of the effects of each. */
function run(events: readonly HeartbeatEvent[]): string[] {
  let state = startHeartbeat(100, 500, 0);
  return events.map((event) => {
    const [next, effects] = step(state, event);
    state = next;
    return effects.map((effect) => effect.kind).join('+');
  });
}

const tick = (nowMs: number, heard = false): HeartbeatEvent => ({ kind: 'tick', nowMs, heard });

describe('heartbeat decision', () => {
  it('sends on every tick and reports what is heard', () => {
    expect(run([tick(100), tick(200, true)])).to.deep.equal(['send', 'send+heard']);
  });

  it('is lost after the timeout, not before', () => {
    const events = [tick(100), tick(200), tick(300), tick(400), tick(500), tick(600)];
    expect(run(events)).to.deep.equal(['send', 'send', 'send', 'send', 'send', 'lost']);
  });

  it('anything heard begins the silence anew', () => {
    const events = [tick(400), tick(500, true), tick(600), tick(1000), tick(1090)];
    expect(run(events)).to.deep.equal(['send', 'send+heard', 'send', 'send', 'lost']);
  });

  it('gives one more interval when it was itself stopped', () => {
    expect(run([tick(100, true), tick(60_100), tick(60_200, true), tick(60_300)])).to.deep.equal([
      'send+heard',
      'send',
      'send+heard',
      'send',
    ]);
  });

  it('and no more than one', () => {
    expect(run([tick(100, true), tick(60_100), tick(60_200)])).to.deep.equal(['send+heard', 'send', 'lost']);
  });

  it('does not count the time while it is paused', () => {
    const events: HeartbeatEvent[] = [{ kind: 'paused' }];
    for (let now = 100; now <= 5000; now += 100) events.push(tick(now));
    events.push({ kind: 'resumed', nowMs: 5050 }, tick(5100), tick(5500), tick(5600));
    const effects = run(events);
    expect(effects.filter((kinds) => kinds === 'lost')).to.deep.equal(['lost']);
    expect(effects.at(-1)).to.equal('lost');
  });

  it('counts from when the last was heard, and ticks when that is too long ago', () => {
    let state = startHeartbeat(100, 500, 0);
    const rest: (number | null)[] = [];
    const kinds: string[] = [];
    const heard: HeartbeatEvent = { kind: 'tick', nowMs: 100, heard: true, heardAtMs: 37 };
    for (const event of [heard, tick(200), tick(300), tick(400), tick(500), tick(538)]) {
      const [next, effects] = step(state, event);
      state = next;
      kinds.push(effects.map(({ kind }) => kind).join('+'));
      rest.push(tickAheadMs(state));
    }
    expect(kinds).to.deep.equal(['send+heard', 'send', 'send', 'send', 'send', 'lost']);
    expect(rest.slice(0, -1)).to.deep.equal([null, null, null, null, 38]);
  });

  it('what was heard before it was itself stopped does not count from then', () => {
    const late: HeartbeatEvent = { kind: 'tick', nowMs: 60_000, heard: true, heardAtMs: 110 };
    expect(run([tick(100), late, tick(60_100)])).to.deep.equal(['send', 'send+heard', 'send']);
  });

  it('in time and regularly fed, never loses a link that talks, and always one that does not', () => {
    const gaps = fc.array(fc.record({ gap: fc.integer({ min: 90, max: 110 }), heard: fc.boolean() }), {
      maxLength: 100,
    });
    fc.assert(
      fc.property(gaps, (ticks) => {
        let now = 0;
        let heardAt = 0;
        let state = startHeartbeat(100, 500, 0);
        for (const { gap, heard } of ticks) {
          now += gap;
          const [next, effects] = step(state, tick(now, heard));
          state = next;
          if (heard) heardAt = now;
          const lost = effects.some((effect) => effect.kind === 'lost');
          expect(lost).to.equal(now - heardAt > 500);
          if (lost) return;
        }
      }),
    );
  });
});

describe('back-off', () => {
  it('doubles up to the limit, in the upper half', () => {
    expect([0, 1, 2, 3, 4, 100].map((n) => spreadMs(backoffMs(100, 1000, n), 0))).to.deep.equal([
      50, 100, 200, 400, 500, 500,
    ]);
    expect(spreadMs(backoffMs(100, 1000, 2), 0.5)).to.equal(300);
  });
});

describe('close codes', () => {
  it('go there and back, and what the library says is understood', () => {
    expect(errorOfCloseCode(closeCodeOf('DIGEST_MISMATCH'))).to.equal('DIGEST_MISMATCH');
    expect(errorOfCloseCode(1009)).to.equal('MESSAGE_TOO_LARGE');
    expect(errorOfCloseCode(1006)).to.equal('LINK_CLOSED');
    expect(errorOfCloseCode(4999)).to.equal('LINK_CLOSED');
    expect(isChannelErrorCode('toString')).to.equal(false);
  });
});

describe('plaintext', () => {
  it('knows loopback', () => {
    const yes = ['127.0.0.1', '127.3.2.1', '::1', '[::1]', 'localhost', 'LOCALHOST', '::ffff:127.0.0.1'];
    const no = ['0.0.0.0', '::', '10.0.0.1', '127.evil.example', '128.0.0.1', 'localhost.example'];
    expect(yes.filter((host) => !isLoopback(host))).to.deep.equal([]);
    expect(no.filter((host) => isLoopback(host))).to.deep.equal([]);
  });

  it('is refused elsewhere unless asked for', () => {
    expect(() => {
      checkPlaintext('0.0.0.0', false, undefined);
    })
      .to.throw()
      .with.property('code', 'PLAINTEXT_REFUSED');
    checkPlaintext('0.0.0.0', false, true);
    checkPlaintext('0.0.0.0', true, undefined);
  });
});

describe('outbox', () => {
  it('never has more than its limit with the socket, whatever the sizes, and keeps the order', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 60 });
    fc.assert(
      fc.property(sizes, (lengths) => {
        const sent: { id: number; done: () => void }[] = [];
        const order: number[] = [];
        let held = 0;
        const outbox = new Outbox(20, (message, done) => {
          const alone = held === 0;
          held += message.length;
          expect(held <= 20 || alone).to.equal(true);
          expect(outbox.bufferedBytes).to.equal(held);
          order.push(message[0] ?? -1);
          sent.push({
            id: message.length,
            done: () => {
              held -= message.length;
              done();
            },
          });
        });
        lengths.forEach((length, id) => void outbox.push(new Uint8Array(length).fill(id)));
        for (let next = sent.shift(); next; next = sent.shift()) next.done();
        expect(order).to.deep.equal(lengths.map((_, id) => id));
        expect(outbox.bufferedBytes).to.equal(0);
      }),
    );
  });

  it('rejects all that waits, and all that comes, once it has failed', async () => {
    const outbox = new Outbox(10, () => undefined);
    await outbox.push(new Uint8Array(10));
    const waiting = [outbox.push(new Uint8Array(1)), outbox.drain()];
    outbox.fail(new Error('cut'));
    waiting.push(outbox.push(new Uint8Array(1)), outbox.drain());
    const results = await Promise.allSettled(waiting);
    expect(results.map((result) => result.status)).to.deep.equal(Array(4).fill('rejected'));
  });
});
