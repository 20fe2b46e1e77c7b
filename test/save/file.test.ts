// Streams in files: whole and in place, or not there at all.

import { expect } from 'chai';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RomulusError } from '../../src/errors.js';
import { MemoryDomain } from '../memory/domain.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { ChunkSource } from '../../src/restore/file-source.js';
import { openFileSource } from '../support/file-source.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { FileSink } from '../../src/save/file-sink.js';
import { saveDomain } from '../../src/save/save.js';
import { driver, firstDifference, pagePattern, sourceOf, targetFor } from './support.js';

const PAGES = 3000;

async function runningDomain(): Promise<MemoryDomain> {
  const domain = new MemoryDomain({ pages: PAGES });
  for (let pfn = 0; pfn < PAGES; pfn++) domain.write(pfn, pagePattern(pfn, 0));
  await domain.start();
  return domain;
}

function saveInto(sink: FileSink, domain: MemoryDomain): Promise<unknown> {
  return saveDomain({
    domain,
    sink,
    streamType: 'plain',
    live: true,
    callbacks: driver({ domain, checkpoints: 0 }),
    slabBytes: 1024 * 1024,
  });
}

const callbacks = { checkpoint: (): Promise<'success'> => Promise.resolve('success') };

describe('a stream in a file', () => {
  let folder: string;
  let path: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'romulus-file-'));
    path = join(folder, 'image');
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('is restored to the same domain', async () => {
    const domain = await runningDomain();
    const sink = await FileSink.create(path);
    await saveInto(sink, domain);
    expect(await readdir(folder)).not.to.include('image');
    await sink.commit();
    expect(await readdir(folder)).to.deep.equal(['image']);
    expect((await readFile(path)).length).to.equal(sink.bytes);

    const target = targetFor(PAGES);
    const source = openFileSource(path);
    const outcome = await restoreDomain({ domain: target, source, streamType: 'plain', callbacks });
    await source.close();
    await source.close();
    expect(outcome.kind).to.equal('complete');
    expect(firstDifference(domain, target)).to.equal(-1);
  });

  it('with the state of a device model is restored to the same domain', async () => {
    const domain = new MemoryDomain({ pages: 20, emulator: true });
    domain.emulatorState = Uint8Array.of(1, 2, 3);
    await domain.start();
    const sink = await FileSink.create(path);
    await saveInto(sink, domain);
    await sink.commit();
    const target = targetFor(20, true);
    const source = openFileSource(path);
    await restoreDomain({ domain: target, source, streamType: 'plain', callbacks });
    await source.close();
    expect(firstDifference(domain, target)).to.equal(-1);
    expect(target.emulatorState).to.deep.equal(domain.emulatorState);
    // Nothing else stands for it: where it cannot go, the image is refused.
    const refused = openFileSource(path);
    let code = '';
    await restoreDomain({ domain: targetFor(20), source: refused, streamType: 'plain', callbacks }).catch(
      (error: unknown) => {
        code = (error as { code: string }).code;
      },
    );
    await refused.close();
    expect(code).to.equal('NO_EMULATOR');
  });

  it('leaves nothing when the save fails, and the old file as it was', async () => {
    await writeFile(path, 'old');
    const domain = await runningDomain();
    domain.script = (call) => {
      if (call === 'hvmContext') throw new HypervisorError('FAILED', 'as scripted');
    };
    const sink = await FileSink.create(path);
    let failed = false;
    await saveInto(sink, domain).catch(() => {
      failed = true;
    });
    expect(failed).to.equal(true);
    await sink.discard();
    await sink.discard();
    expect(await readdir(folder)).to.deep.equal(['image']);
    expect(await readFile(path, 'utf8')).to.equal('old');
  });

  it('leaves nothing when it cannot take its name', async () => {
    const sink = await FileSink.create(path);
    await sink.write({ memory: new Uint8Array(16), start: 8, end: 16 });
    // A folder stands where the file should go.
    await writeFile(join(folder, 'other'), '');
    await mkdir(path);
    let code = '';
    await sink.commit().catch((error: unknown) => {
      code = (error as { code: string }).code;
    });
    expect(code).to.equal('EISDIR');
    expect(await readdir(folder)).to.have.members(['image', 'other']);
  });

  it('fails at once where no file can be made', async () => {
    let code = '';
    await FileSink.create(join(folder, 'no', 'such')).catch((error: unknown) => {
      code = (error as { code: string }).code;
    });
    expect(code).to.equal('ENOENT');
  });

  async function codeOf(octets: Uint8Array): Promise<string> {
    await writeFile(path, octets);
    const source = openFileSource(path);
    try {
      await restoreDomain({ domain: targetFor(PAGES), source, streamType: 'plain', callbacks });
      return 'restored';
    } catch (error) {
      return error instanceof RomulusError ? String(error.code) : 'untyped';
    } finally {
      await source.close();
    }
  }

  it('that is cut, empty, too long or no stream at all has its error', async () => {
    const sink = await FileSink.create(path);
    await saveInto(sink, await runningDomain());
    await sink.commit();
    const octets = await readFile(path);
    expect(await codeOf(octets)).to.equal('restored');
    expect(await codeOf(octets.subarray(0, octets.length - 1))).to.equal('NO_CONSISTENT_CHECKPOINT');
    expect(await codeOf(octets.subarray(0, 40))).to.equal('NO_CONSISTENT_CHECKPOINT');
    expect(await codeOf(octets.subarray(0, 39))).to.equal('TRUNCATED');
    expect(await codeOf(new Uint8Array(0))).to.equal('TRUNCATED');
    expect(await codeOf(Buffer.concat([octets, Buffer.alloc(1)]))).to.equal('TRAILING_DATA');
    expect(await codeOf(Buffer.concat([octets, Buffer.alloc(3_000_000)]))).to.equal('TRAILING_DATA');
    expect(await codeOf(Buffer.alloc(1000))).to.equal('BAD_MARKER');
  });

  it('that is not there fails the first read', async () => {
    const source = openFileSource(join(folder, 'none'));
    let code = '';
    await source.headers().catch((error: unknown) => {
      code = (error as { code: string }).code;
    });
    await source.close();
    expect(code).to.equal('ENOENT');
  });

  it('may be followed by something else where that is asked for', async () => {
    const sink = await FileSink.create(path);
    await saveInto(sink, await runningDomain());
    await sink.commit();
    const octets = Buffer.concat([await readFile(path), Buffer.from('more')]);
    async function* chunks(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(octets);
    }
    const source = new ChunkSource(chunks(), { nothingAfterEnd: false });
    const outcome = await restoreDomain({ domain: targetFor(PAGES), source, streamType: 'plain', callbacks });
    expect(outcome.kind).to.equal('complete');
    // A source that was closed early is at its end.
    const closed = sourceOf(octets);
    await closed.headers();
    await closed.close();
    expect(await closed.read()).to.equal(null);
  });
});
