// The rules of the house are held by the linter; these tests hold the linter to them.

import { execFile } from 'node:child_process';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { ESLint } from 'eslint';
import { Cleanup } from './support/cleanup.js';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** What the linter says of a file of our house in which only this stands. */
async function complaints(file: string, code: string, ...rules: string[]): Promise<string[]> {
  // The file does not exist, so rules that need types cannot run.
  const eslint = new ESLint({
    cwd: root,
    ruleFilter: ({ ruleId }) => rules.includes(ruleId),
    overrideConfig: { languageOptions: { parserOptions: { projectService: false, project: false } } },
  });
  const [result] = await eslint.lintText(code, { filePath: `${root}${file}` });
  return (result?.messages ?? []).map((message) => message.message);
}

const importComplaints = (file: string, code: string) => complaints(file, code, 'no-restricted-imports');

/** A row allows, or refuses, what is on its right to the file on its left. */
type Row = readonly [file: string, specifier: string];

function floors(): void {
  const allowed: readonly Row[] = [
    ['src/cli/x.ts', '../service/primary-service.js'],
    ['src/cli/x.ts', '../hypervisor/embedded/index.js'],
    ['src/service/x.ts', '../protection/role.js'],
    ['src/service/x.ts', '../hypervisor/qemu/index.js'],
    ['src/protection/x.ts', '../primary/primary.js'],
    ['src/primary/x.ts', '../report/reports.js'],
    ['src/secondary/x.ts', '../restore/steps.js'],
    ['src/observe/metrics/x.ts', '../hooks/events.js'],
    ['src/report/x.ts', '../config/agent.js'],
    ['src/config/x.ts', '../channel/credentials/security.js'],
    ['src/save/x.ts', '../guest/ops.js'],
    ['src/save/x.ts', '../hypervisor/port.js'],
    ['src/channel/link/x.ts', '../../stream/flow.js'],
    ['src/guest/x86-hvm/x.ts', '../../hypervisor/port.js'],
    ['src/hypervisor/port.ts', '../output/gate.js'],
    ['src/hypervisor/embedded/x.ts', '../port.js'],
    ['src/hypervisor/qemu/memory/fuse/x.ts', '../../../../stream/format.js'],
    ['src/hypervisor/qemu/disks/nbd/x.ts', '../../../../disk/journal.js'],
    ['src/output/x.ts', '../flow/in-order.js'],
    ['src/disk/x.ts', '../stream/bounds.js'],
    ['src/stream/x.ts', '../errors.js'],
    ['src/flow/x.ts', '../errors.js'],
  ];
  for (const [file, specifier] of allowed) {
    it(`${file} may import ${specifier}`, async () => {
      expect(await importComplaints(file, `import '${specifier}';\n`)).to.deep.equal([]);
    });
  }

  const refused: readonly Row[] = [
    ['src/service/x.ts', '../cli/main.js'],
    ['src/protection/x.ts', '../service/primary-service.js'],
    ['src/primary/x.ts', '../secondary/secondary.js'],
    ['src/observe/http/x.ts', '../../primary/primary.js'],
    ['src/report/x.ts', '../observe/hooks/hooks.js'],
    ['src/config/x.ts', '../report/log.js'],
    ['src/save/x.ts', '../service/primary-service.js'],
    ['src/save/x.ts', '../restore/restore.js'],
    ['src/channel/credentials/x.ts', '../../config/agent.js'],
    ['src/channel/x.ts', '../failover/witness.js'],
    ['src/disk/x.ts', '../save/save.js'],
    ['src/disk/x.ts', '../hypervisor/bitmap.js'],
    ['src/disk/x.ts', '../output/gate.js'],
    ['src/output/x.ts', '../disk/journal.js'],
    ['src/restore/x.ts', '../hypervisor/qemu/index.js'],
    ['src/primary/x.ts', '../hypervisor/embedded/index.js'],
    ['src/guest/x86-hvm/x.ts', '../../save/context.js'],
    ['src/hypervisor/port.ts', './qemu/index.js'],
    ['src/hypervisor/embedded/x.ts', '../../guest/ops.js'],
    ['src/hypervisor/embedded/x.ts', '../qemu/index.js'],
    ['src/hypervisor/qemu/memory/x.ts', '../../xen/index.js'],
    ['src/output/x.ts', '../hypervisor/port.js'],
    ['src/output/x.ts', '../config/agent.js'],
    ['src/stream/x.ts', '../output/gate.js'],
    ['src/stream/records/x.ts', '../../save/context.js'],
    ['src/flow/x.ts', '../stream/format.js'],
    ['src/errors.ts', './flow/clock.js'],
  ];
  for (const [file, specifier] of refused) {
    it(`${file} must not import ${specifier}, nor a type of it`, async () => {
      expect(await importComplaints(file, `import '${specifier}';\n`)).to.have.lengthOf(1);
      expect(await importComplaints(file, `import type { X } from '${specifier}';\n`)).to.have.lengthOf(1);
    });
  }
}

function operators(): void {
  const operator = "import { concatMap } from 'rxjs';\n";
  const rooms = [
    ...['flow', 'primary', 'secondary', 'protection', 'observe/hooks', 'channel/link'],
    ...['hypervisor/qemu', 'hypervisor/qemu/state', 'hypervisor/embedded', 'hypervisor/xen'],
  ];
  for (const room of rooms) {
    it(`stand in src/${room}`, async () => {
      expect(await importComplaints(`src/${room}/x.ts`, operator)).to.deep.equal([]);
    });
  }
  const others = [
    ...['cli', 'service', 'observe/metrics', 'report', 'config', 'save', 'restore', 'disk', 'channel'],
    ...['channel/dial', 'failover', 'guest', 'hypervisor', 'output', 'stream'],
  ];
  for (const room of others) {
    it(`do not stand in src/${room}; types and sources do`, async () => {
      const file = `src/${room}/x.ts`;
      expect(await importComplaints(file, operator)).to.have.lengthOf(1);
      expect(await importComplaints(file, "import * as rxjs from 'rxjs';\n")).to.have.lengthOf(1);
      expect(await importComplaints(file, "import { map } from 'rxjs/operators';\n")).to.have.lengthOf(1);
      const sources = "import { Subject, type Observable } from 'rxjs';\nimport type { map } from 'rxjs';\n";
      expect(await importComplaints(file, sources)).to.deep.equal([]);
    });
  }
}

function decisions(): void {
  const files = [
    ...['src/primary/life.ts', 'src/primary/life-state.ts', 'src/primary/ledger.ts'],
    ...['src/secondary/vigil.ts', 'src/secondary/redial.ts', 'src/protection/role.ts'],
    'src/channel/link/heartbeat.ts',
  ];
  for (const file of files) {
    it(`${file} knows no clock, no file, no stream of events, no configuration`, async () => {
      const above = file.split('/').length === 4 ? '../..' : '..';
      for (const specifier of ['node:fs', 'rxjs', `${above}/config/agent.js`]) {
        const said = await importComplaints(file, `import type { X } from '${specifier}';\n`);
        expect(said, specifier).to.not.be.empty;
      }
      expect(await importComplaints(file, `import { x } from '${above}/errors.js';\n`)).to.deep.equal([]);
    });
  }
}

function lengths(): void {
  const lines = (count: number) => '  x();\n'.repeat(count);
  const functionOf = (count: number) => `function f() {\n${lines(count - 2)}}\nf();\n`;

  it('a file has 350 lines at most', async () => {
    for (const file of ['src/save/x.ts', 'test/save/x.ts']) {
      expect(await complaints(file, lines(350), 'max-lines')).to.deep.equal([]);
      expect(await complaints(file, lines(351), 'max-lines')).to.have.lengthOf(1);
    }
  });

  it('a function has 70 lines at most', async () => {
    const rules = ['max-lines-per-function', 'house/function-lines'];
    for (const file of ['src/save/x.ts', 'test/save/x.ts']) {
      expect(await complaints(file, functionOf(70), ...rules)).to.deep.equal([]);
      expect(await complaints(file, functionOf(71), ...rules)).to.have.lengthOf(1);
    }
  });

  it('a chapter of tests may be longer, a test may not', async () => {
    const call = (name: string) => `${name}('x', function () {\n${lines(80)}});\n`;
    const said = (code: string) => complaints('test/save/x.test.ts', code, 'house/function-lines');
    expect(await said(call('describe'))).to.deep.equal([]);
    expect(await said(call('it'))).to.have.lengthOf(1);
  });
}

async function circles(directory: string): Promise<string> {
  const tool = path.join(root, 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs');
  const config = path.join(root, '.dependency-cruiser.mjs');
  try {
    await promisify(execFile)(process.execPath, [tool, '--config', config, 'src'], { cwd: directory });
    return '';
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

describe('house', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  describe('floors', floors);
  describe('operators', operators);
  describe('decisions', decisions);
  describe('lengths', lengths);

  it('a circle of two types is found', async () => {
    const directory = await cleanup.directory();
    await mkdir(path.join(directory, 'src'));
    const one = "import type { B } from './b.js';\nexport interface A { readonly b: B }\n";
    const other = "import type { A } from './a.js';\nexport interface B { readonly a: A }\n";
    await writeFile(path.join(directory, 'src/a.ts'), one);
    await writeFile(path.join(directory, 'src/b.ts'), 'export interface B { readonly b: B }\n');
    expect(await circles(directory)).to.equal('');
    await writeFile(path.join(directory, 'src/b.ts'), other);
    expect(await circles(directory)).to.match(/no-circle.*src\/[ab]\.ts/);
  });

  it('there is none in src', async () => {
    expect(await circles(root)).to.equal('');
  });

  it('service/ is the process, and no more', async () => {
    const names = await readdir(path.join(root, 'src/service'), { recursive: true });
    const files = names.filter((name) => name.endsWith('.ts'));
    const texts = await Promise.all(
      files.map((name) => readFile(path.join(root, 'src/service', name), 'utf8')),
    );
    const lines = texts.reduce((sum, text) => sum + text.split('\n').length - 1, 0);
    expect(lines).to.be.greaterThan(0).and.below(700);
  });
});
