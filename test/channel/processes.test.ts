// Two processes, one of which is killed or stopped.

import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { dial } from '../../src/channel/dial/dialer.js';
import { encodeControl } from '../../src/channel/wire/encode.js';
import { RecordType } from '../../src/stream/format.js';
import { FakePrimary } from './fake-primary.js';
import { Peer } from './peer.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import {
  TestPrimary,
  checkpointRecord,
  errorOf,
  helloOf,
  lostOf,
  pieceOf,
  streamHeaders,
} from './support.js';

describe('two processes', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  function peerOf(...args: string[]): Peer {
    const peer = new Peer(...args);
    cleanup.add(() => peer.kill());
    return peer;
  }

  async function primaryOf(options = {}): Promise<TestPrimary> {
    const primary = await new TestPrimary(options).start();
    cleanup.add(() => primary.listener.close());
    return primary;
  }

  async function portOf(peer: Peer): Promise<number> {
    await until('the peer listens', () => peer.find('listening') !== undefined);
    return peer.find('listening')?.port ?? 0;
  }

  it('secondary killed: LINK_CLOSED, and the next one is taken', async () => {
    const test = await primaryOf();
    const linked = test.nextLink();
    const peer = peerOf('secondary', test.url);
    const link = await linked;
    await link.sink.write(pieceOf(streamHeaders, checkpointRecord));
    await link.sink.boundary(0, false);
    await until('epoch 0 is committed', () => peer.find('committed')?.epoch === 0);
    const started = performance.now();
    const lost = lostOf(link);
    await peer.kill();
    expect((await lost).code).to.equal('LINK_CLOSED');
    expect(performance.now() - started).to.be.lessThan(500);
    const again = test.nextLink();
    peerOf('secondary', test.url);
    await again;
  });

  it('primary killed in mid-checkpoint: a prefix, then null', async () => {
    const peer = peerOf('primary', '1000');
    const port = await portOf(peer);
    const url = `ws://127.0.0.1:${port}`;
    const link = await dial({ url, hello: helloOf() });
    let epochs = 0;
    for (;;) {
      const record = await link.source.read();
      if (record === null) break;
      if (record.type === RecordType.CHECKPOINT) {
        expect((await link.boundary()).epoch).to.equal(epochs++);
        if (epochs === 3) void peer.kill();
      } else {
        expect(record.body[0]).to.equal(epochs);
        expect(record.body.length).to.equal(1 << 20);
      }
    }
    expect(epochs).to.be.at.least(3);
    expect((await lostOf(link)).code).to.equal('LINK_CLOSED');
    await peer.kill();
    expect((await errorOf(dial({ url, hello: helloOf() }))).code).to.equal('REFUSED');
  });

  it('secondary stopped: HEARTBEAT_TIMEOUT at the primary, and the secondary learns it when it goes on', async () => {
    const test = await primaryOf({ heartbeatTimeoutMs: 250 });
    const linked = test.nextLink();
    const peer = peerOf('secondary', test.url);
    const link = await linked;
    await until('the peer is linked', () => peer.find('heard') !== undefined);
    const started = performance.now();
    const lost = lostOf(link);
    peer.process.kill('SIGSTOP');
    expect((await lost).code).to.equal('HEARTBEAT_TIMEOUT');
    expect(performance.now() - started).to.be.within(150, 1500);
    peer.process.kill('SIGCONT');
    await until('the peer lost the link', () => peer.find('lost') !== undefined);
    expect(peer.find('lost')?.code).to.be.oneOf(['HEARTBEAT_TIMEOUT', 'LINK_CLOSED']);
  });

  it('secondary stopped: a goodbye is not confirmed', async () => {
    const test = await new TestPrimary({ heartbeatTimeoutMs: 5000 }).start();
    cleanup.add(() => test.listener.close());
    const next = test.nextLink();
    const peer = peerOf('secondary', test.url);
    const link = await next;
    peer.process.kill('SIGSTOP');
    expect(await link.bye('shutdown')).to.equal(false);
    peer.process.kill('SIGCONT');
  });

  it('primary stopped: HEARTBEAT_TIMEOUT at the secondary, and the primary takes it again when it goes on', async () => {
    const peer = peerOf('primary', '250');
    const url = `ws://127.0.0.1:${await portOf(peer)}`;
    const link = await dial({ url, hello: helloOf() });
    const reading = (async () => {
      for (let record = await link.source.read(); record; record = await link.source.read());
    })();
    const lost = lostOf(link);
    peer.process.kill('SIGSTOP');
    expect((await lost).code).to.equal('HEARTBEAT_TIMEOUT');
    await reading;
    peer.process.kill('SIGCONT');
    await until('the peer lost the link', () => peer.find('lost') !== undefined);
    const again = await dial({ url, hello: helloOf() });
    expect((await again.source.headers()).version).to.equal(3);
    await again.bye('shutdown');
  });

  it('stopped ourselves for longer than the timeout, the other side alive: the link stands', async () => {
    const fake = await new FakePrimary().start();
    cleanup.add(() => fake.close());
    const connected = fake.nextPeer();
    const child = peerOf('secondary', fake.url);
    const peer = await connected;
    const beat = setInterval(() => {
      peer.send(encodeControl({ kind: 'heartbeat' }));
    }, 50);
    cleanup.add(() => {
      clearInterval(beat);
    });
    await until('the child hears', () => child.reports.length >= 4);
    child.process.kill('SIGSTOP');
    // Three times the timeout that the fake primary's welcome sets.
    await sleep(600);
    const before = child.reports.length;
    child.process.kill('SIGCONT');
    await until('the child hears again', () => child.reports.length >= before + 8);
    expect(child.find('lost')).to.equal(undefined);
    expect(peer.readyState).to.equal(peer.OPEN);
  });
});
