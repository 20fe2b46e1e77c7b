// Saver, link and restorer together: at every epoch the standby's memory is the primary's at its suspend. This is
// where memory that is used again too early would show.

import { expect } from 'chai';
import { filter, firstValueFrom } from 'rxjs';
import { MemoryDomain } from '../memory/domain.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { saveDomain } from '../../src/save/save.js';
import { PAGE_SIZE } from '../../src/stream/format.js';
import { Cleanup } from '../support/cleanup.js';
import { TestPrimary, seeded } from './support.js';

const PAGES = 4096;

describe('saver, link and restorer', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('every epoch is the primary’s memory at its suspend', () => replicate(false));

  it('every epoch is its memory and its device model, in libxl’s layer', () => replicate(true));

  async function replicate(emulator: boolean): Promise<void> {
    const test = await new TestPrimary().start();
    cleanup.add(() => test.listener.close());
    const { primary, secondary } = await test.pair();
    const source = new MemoryDomain({ pages: PAGES, emulator });
    const standby = new MemoryDomain({ pages: PAGES, empty: true, emulator });
    const random = seeded(7);
    /** Pages dirtied before each epoch: whole batches, parts of one, none, scattered and in runs. */
    const counts = [PAGES, 1024, 700, 0, 1, 3000, PAGES, 33, 2048, 1500];
    let expected = source.memoryCopy();
    const dirty = (count: number, epoch: number) => {
      const first = Math.floor(random() * PAGES);
      const step = epoch % 2 === 0 ? 1 : 7;
      const page = new Uint8Array(PAGE_SIZE);
      for (let i = 0; i < count; i++) {
        page.fill(Math.floor(random() * 256));
        source.write((first + i * step) % PAGES, page);
      }
    };
    await source.start();
    dirty(counts[0] ?? 0, 0);

    const saving = saveDomain({
      domain: source,
      sink: primary.sink,
      streamType: 'remus',
      live: false,
      // Smaller than some epochs, larger than others.
      slabBytes: 9 * 1024 * 1024,
      callbacks: {
        async suspend() {
          await source.suspend();
          expected = source.memoryCopy();
          if (emulator) source.emulatorState = new Uint8Array(30_000).fill(Math.floor(random() * 256));
        },
        postcopy: () => source.resume(),
        async checkpoint(epoch, sent) {
          const isApplied = standbyApplied(epoch);
          await firstValueFrom(
            primary.events$.pipe(filter((event) => event.kind === 'acknowledged' && event.epoch === epoch)),
          );
          await Promise.all([sent, isApplied]);
          dirty(counts[epoch + 1] ?? 0, epoch + 1);
          return epoch + 1 < counts.length ? 'continue' : 'finish';
        },
      },
    });
    const applied: number[] = [];
    let wake: () => void = () => undefined;
    const standbyApplied = async (epoch: number) => {
      while (!applied.includes(epoch)) await new Promise<void>((resolve) => (wake = resolve));
    };
    const outcome = await restoreDomain({
      domain: standby,
      source: secondary.source,
      streamType: 'remus',
      callbacks: {
        async checkpoint(epoch) {
          expect((await secondary.boundary()).epoch).to.equal(epoch);
          await secondary.acknowledge(epoch);
          return 'success';
        },
        applied({ epoch }) {
          expect(Buffer.compare(standby.memory, expected)).to.equal(0);
          applied.push(epoch);
          wake();
        },
      },
    });
    expect(outcome).to.deep.equal({ kind: 'complete', epochs: counts.length });
    expect((await secondary.boundary()).end).to.equal(true);
    expect((await saving).checkpoints).to.equal(counts.length);
    expect(Buffer.compare(standby.emulatorState, source.emulatorState)).to.equal(0);
  }
});
