// A file for what does not fit into memory, on a disk that hangs: an error, and nothing that is waited for.

import { open, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { expect } from 'chai';
import { SpillFile } from '../../src/restore/spill-file.js';
import { Cleanup } from '../support/cleanup.js';
import { errorOf } from './disk-streams.js';

const octets = (fill: number) => [new Uint8Array(100).fill(fill)];

describe('a spill file', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  /** `hangs`: what of the next file waits until it is let go. */
  async function spill(hangs: 'open' | 'write' | 'read') {
    let letGo: () => void = () => undefined;
    const going = new Promise<void>((resolve) => (letGo = resolve));
    let isFirst = true;
    const handles: FileHandle[] = [];
    const directory = await cleanup.directory();
    const opened = async (name: string): Promise<FileHandle> => {
      const handle = await open(name, 'wx+');
      handles.push(handle);
      if (!isFirst) return handle;
      isFirst = false;
      if (hangs === 'open') await going;
      else {
        const work = handle[hangs].bind(handle) as (...given: unknown[]) => Promise<unknown>;
        const waiting = async (...given: unknown[]) => {
          await going;
          return work(...given);
        };
        const close = handle.close.bind(handle);
        Object.assign(handle, { [hangs]: waiting, close: () => going.then(close) });
      }
      return handle;
    };
    const file = new SpillFile(directory, { limitMs: 60, open: opened });
    cleanup.add(() => file.clear());
    const closed = () => handles.map(({ fd }) => fd < 0);
    return { file, letGo, closed, directory };
  }

  for (const hangs of ['open', 'write', 'read'] as const) {
    it(`that hangs at ${hangs} is an error, nobody waits for it, and another one is begun`, async () => {
      const { file, letGo, closed, directory } = await spill(hangs);
      if (hangs === 'read') await file.append(octets(1));
      const error = await errorOf(
        hangs === 'read' ? file.read(0, new Uint8Array(10)) : file.append(octets(1)),
      );
      expect(error.code).to.equal('SPILL_FAILED');
      expect(error.message).to.include(`${directory}: it hangs, for 60 ms by now`);
      await file.clear();
      await file.append(octets(2));
      letGo();
      // What was left to hang comes to its end behind us.
      for (let turns = 0; turns < 1000 && closed()[0] !== true; turns++) await new Promise(setImmediate);
      expect(closed()).to.deep.equal([true, false]);
      expect(file.bytes).to.equal(100);
      const read = new Uint8Array(100);
      await file.read(0, read);
      expect(read).to.deep.equal(octets(2)[0]);
    });
  }

  it('that has no directory is an error', async () => {
    const file = new SpillFile(path.join(await cleanup.directory(), 'nowhere'), { limitMs: 1000 });
    expect((await errorOf(file.append(octets(1)))).facts).to.include({ code: 'ENOENT' });
  });
});
