// romulus inspect and verify as a person or a script calls them: real files, a pipe, exit codes, JSON; and a huge file
// through little memory.

import { expect } from 'chai';
import { inspectVerb } from '../../src/cli/inspect.js';
import { InputFile } from '../../src/cli/files/input.js';
import { progressLine } from '../../src/cli/files/progress.js';
import { verifyVerb } from '../../src/cli/verify.js';
import { Judge } from '../../src/stream/examine/judge.js';
import type { Finding } from '../../src/stream/examine/rules.js';
import { RecordType } from '../../src/stream/format.js';
import { concatenate, encodeRecord } from '../../src/stream/writer.js';
import { readFixture } from '../fixtures/xen.js';
import { checkpointed, judged, libxcStream, surveyed } from '../stream/examine/support.js';
import { Captured, entry, folderForTests, romulus, run } from './stream-files.js';

interface Inspected {
  readonly records: unknown[];
  readonly checkpoints: number;
}

interface Verified {
  readonly verdict: string;
  readonly findings: Finding[];
  readonly lastCheckpoint: { readonly number: number } | null;
}

describe('inspect and verify', function () {
  this.timeout(60_000);
  const folder = folderForTests();

  for (const name of ['pv-remus-6ckpt', 'hvm-save', 'hvm-colo-6ckpt.libxc']) {
    it(`${name}: a file is what its octets are`, async () => {
      const octets = readFixture(name);
      const file = await folder.write('in', octets);
      const output = new Captured();
      expect(await inspectVerb(file, { json: true }, output)).to.equal(0);
      const { records, ...rest } = JSON.parse(output.text) as Inspected;
      const expected = surveyed(octets);
      expect(records).to.deep.equal(JSON.parse(JSON.stringify(expected.records)));
      expect(rest).to.deep.equal({ file, ...(JSON.parse(JSON.stringify(expected.survey)) as object) });

      const input = await InputFile.open(file);
      const findings: Finding[] = [];
      const judge = new Judge((finding) => findings.push(finding));
      const { result, length } = await input.walk(judge);
      judge.ended(result, length);
      await input.close();
      expect({ findings, end: result }).to.deep.equal(judged(octets));
    });
  }

  it('files cut anywhere are what their octets are', async () => {
    const octets = checkpointed('hvm', 'xl');
    for (let cut = 0; cut < octets.length; cut += 997) {
      const file = await folder.write('cut', octets.subarray(0, cut));
      const output = new Captured();
      const exitCode = await verifyVerb(file, { json: true }, output);
      const { findings, end } = judged(octets.subarray(0, cut));
      const verified = JSON.parse(output.text) as Verified;
      expect(verified.findings).to.deep.equal(findings);
      expect(verified.lastCheckpoint).to.deep.equal(end.checkpoint);
      expect(exitCode).to.equal(cut === 0 ? 2 : 1);
    }
  });

  it('exit codes: 0 sound, 1 unsound, 2 unreadable', async () => {
    const sound = await folder.write('sound', readFixture('pv-remus-6ckpt'));
    const unsound = await folder.write('unsound', readFixture('pv-remus-6ckpt').subarray(0, 4_700_000));
    const future = readFixture('pv-save.libxc').slice();
    future[15] = 4;
    const unreadable = await folder.write('unreadable', future);
    const verified = await romulus('verify', sound);
    expect(verified).to.deep.include({ exitCode: 0, stderr: '' });
    expect(verified.stdout).to.contain('sound').and.to.contain('checkpoint is 6');
    const cut = await romulus('verify', unsound);
    expect(cut.exitCode).to.equal(1);
    expect(cut.stdout)
      .to.contain('[truncated]')
      .and.to.contain('the last complete checkpoint is 5, which ends at');
    const other = await romulus('verify', unreadable);
    expect(other.exitCode).to.equal(2);
    expect(other.stdout).to.contain('stream version 4').and.to.contain('unreadable');
    const missing = await romulus('verify', folder.path('missing'));
    expect(missing).to.deep.include({ exitCode: 2, stdout: '' });
    expect((await romulus('verify', folder.path('.'))).exitCode).to.equal(2);
    expect((await romulus('inspect', unsound)).exitCode).to.equal(0);
    expect((await romulus('inspect', unreadable)).exitCode).to.equal(2);
  });

  it('a person reads what is in it', async () => {
    const file = await folder.write('hvm', readFixture('hvm-remus-6ckpt'));
    const { stdout, exitCode } = await romulus('inspect', file);
    expect(exitCode).to.equal(0);
    for (const line of [
      'layers       xl › libxl › libxc version 3',
      'guest        x86 HVM, 1 vCPU',
      'written by   Xen 4.17',
      'memory       1040 pages (4.1 MiB), highest pfn 0xfefff',
      'checkpoints  6',
      '     13077527            8 libxc CHECKPOINT #6',
    ]) {
      expect(stdout.split('\n')).to.include(line);
    }
  });

  it('a pipe is walked, too', async () => {
    const octets = readFixture('hvm-save');
    const file = await folder.write('piped', octets);
    const script = 'cat "$1" | "$2" "$3" "$4" /dev/stdin --json';
    const inspected = await run('sh', ['-c', script, 'sh', file, process.execPath, entry, 'inspect']);
    expect(inspected).to.deep.include({ exitCode: 0, stderr: '' });
    expect((JSON.parse(inspected.stdout) as Inspected).records).to.have.lengthOf(
      surveyed(octets).records.length,
    );
    const verified = await run('sh', ['-c', script, 'sh', file, process.execPath, entry, 'verify']);
    expect((JSON.parse(verified.stdout) as Verified).verdict).to.equal('sound');
  });

  it('a length that lies costs what is there', async () => {
    const lie = Uint8Array.of(0x13, 0, 0, 0x80, 0, 0, 0, 8);
    const file = await folder.write(
      'lie',
      concatenate([libxcStream('pv').subarray(0, 40), lie, new Uint8Array(99)]),
    );
    const before = process.memoryUsage().arrayBuffers;
    expect(await verifyVerb(file, {}, new Captured())).to.equal(1);
    expect(process.memoryUsage().arrayBuffers - before).to.be.below(8 * 1024 ** 2);
  });

  it('findings are printed up to a number, and counted', async () => {
    const empty = encodeRecord(RecordType.PAGE_DATA, new Uint8Array(8));
    const many = concatenate([
      libxcStream('hvm').subarray(0, -8),
      ...Array.from({ length: 12_000 }, () => empty),
    ]);
    const output = new Captured();
    expect(await verifyVerb(await folder.write('many', many), {}, output)).to.equal(1);
    expect(output.text.match(/page-data\.count/g)).to.have.lengthOf(10_000);
    expect(output.text).to.contain('… and 2001 more').and.to.contain('12001 errors');
  });

  it('the bar', () => {
    expect(progressLine('verify', 512 * 1024 ** 2, 1024 ** 3)).to.equal(
      `verify  ${'█'.repeat(15)}${'░'.repeat(15)}   50 %  512 of 1024 MiB`,
    );
    expect(progressLine('verify', 3 * 1024 ** 2, null)).to.equal('verify  3 MiB');
  });
});
