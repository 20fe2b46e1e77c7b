// The domain behind the port: a guest goes through the real saver into a file, checkpoint by checkpoint while it runs,
// and out of the file through the real restorer. The file breaks off; the guest goes on from its last checkpoint.

import { rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { Domain } from '../../../src/hypervisor/port.js';
import { openQemuSource, openQemuTarget } from '../../../src/hypervisor/qemu/index.js';
import { openFileSource } from '../../support/file-source.js';
import { restoreDomain } from '../../../src/restore/restore.js';
import { FileSink } from '../../../src/save/file-sink.js';
import { saveDomain } from '../../../src/save/save.js';
import { Console } from '../support.js';
import { needQemu, tickGuest } from './support.js';
import { temporaryDirectory } from '../../support/temporary.js';

const CHECKPOINTS = 10;

describe('qemu: a checkpointed stream', function () {
  let folder: string;
  const domains: Domain[] = [];
  before(function () {
    return needQemu(this);
  });
  beforeEach(async () => {
    folder = await temporaryDirectory('romulus-stream-');
  });
  afterEach(async () => {
    for (const domain of domains.splice(0)) await domain.destroy();
    await rm(folder, { recursive: true });
  });

  it('is saved and restored like any other domain’s', async () => {
    const config = tickGuest();
    const source = await openQemuSource(config);
    domains.push(source);
    const screen = new Console(source);
    await source.start();
    await screen.untilText('tick 2 ok\n');
    const file = join(folder, 'stream');
    const sink = await FileSink.create(file);
    const said: number[] = [];
    const result = await saveDomain({
      domain: source,
      sink,
      streamType: 'remus',
      live: true,
      callbacks: {
        suspend: async () => {
          await source.suspend();
          said.push(screen.text.length);
        },
        postcopy: () => source.resume(),
        checkpoint: async (epoch, sent) => {
          await sent;
          await sleep(20);
          return epoch === CHECKPOINTS - 1 ? 'finish' : 'continue';
        },
      },
    });
    expect(result.checkpoints).to.equal(CHECKPOINTS);
    await sink.commit();
    await source.destroy();
    await truncate(file, (await stat(file)).size - 4); // in the last record, END

    const target = await openQemuTarget(config);
    domains.push(target);
    const targetScreen = new Console(target);
    const stream = openFileSource(file);
    try {
      const outcome = await restoreDomain({
        domain: target,
        source: stream,
        streamType: 'remus',
        callbacks: { checkpoint: () => Promise.resolve('success') },
      });
      expect(outcome).to.deep.include({ kind: 'failover', epoch: CHECKPOINTS - 1 });
    } finally {
      await stream.close();
    }
    await target.start();
    await targetScreen.until(() => targetScreen.ticks().length >= 3);
    const text = screen.text.slice(0, said[CHECKPOINTS - 1]) + targetScreen.text;
    const ticks = [...text.matchAll(/tick (\d+) ok\r?\n/g)].map((match) => Number(match[1]));
    expect(ticks).to.deep.equal(ticks.map((_, index) => index + 1));
    expect(text).to.not.include('BAD');
  });
});
