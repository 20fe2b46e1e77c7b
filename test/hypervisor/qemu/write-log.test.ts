// The log of writes between the process that serves guest RAM and the one that saves it.

import { closeSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import fc from 'fast-check';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import {
  LOG_BYTES,
  LOG_ENTRIES,
  WriteLogReader,
  WriteLogWriter,
} from '../../../src/hypervisor/qemu/memory/fuse/write-log.js';
import { openAnonymousFile } from '../../../src/hypervisor/qemu/memory/ram-file.js';

const PAGES = 1024;

describe('qemu: the log of writes', () => {
  let fd = -1;
  let writer: WriteLogWriter;
  let reader: WriteLogReader;

  beforeEach(async () => {
    fd = await openAnonymousFile(LOG_BYTES);
    writer = new WriteLogWriter(fd);
    reader = new WriteLogReader(fd);
  });
  afterEach(() => closeSync(fd));

  const read = (): Set<number> => {
    const bitmap = new Bitmap(PAGES);
    reader.read(bitmap);
    const pages = new Set<number>();
    for (let page = bitmap.next(0); page >= 0; page = bitmap.next(page + 1)) pages.add(page);
    return pages;
  };
  /** Appends `count` writes of page `page`. */
  const append = (count: number, page: number): void => {
    for (let k = 0; k < count; k++) writer.append(page, 1);
  };

  it('tells each write once, however many there are between two readings', () => {
    const write = fc.tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: 256 }));
    fc.assert(
      fc.property(fc.array(fc.array(write, { maxLength: 700 }), { maxLength: 20 }), (rounds) => {
        read();
        for (const writes of rounds) {
          const expected = new Set<number>();
          for (const [first, pages] of writes) {
            writer.append(first, pages);
            for (let page = first; page < Math.min(PAGES, first + pages); page++) expected.add(page);
          }
          expect(read()).to.deep.equal(expected);
          expect(read().size).to.equal(0);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('goes around, as long as it is read in time', () => {
    for (let round = 0; round < 5; round++) {
      append(LOG_ENTRIES - 7, round);
      expect([...read()]).to.deep.equal([round]);
    }
    append(LOG_ENTRIES, 9);
    expect([...read()]).to.deep.equal([9]);
    expect(read().size).to.equal(0);
  });

  it('tells of all pages where writes were overwritten unread, and is right again after that', () => {
    for (const missed of [1, 100, LOG_ENTRIES, 3 * LOG_ENTRIES + 5]) {
      append(LOG_ENTRIES + missed, 3);
      expect(read().size).to.equal(PAGES);
      expect(read().size).to.equal(0);
      append(2, 5);
      expect([...read()]).to.deep.equal([5]);
    }
  });

  it('believes no entry that is not in its order', () => {
    append(3, 1);
    read();
    // An old number, and none: nothing was written since.
    for (const number of [2, 0]) {
      writeSync(fd, Uint32Array.of(7, 1, 0, number), 0, 16, 4 * 16);
      expect(read().size).to.equal(0);
    }
  });
});
