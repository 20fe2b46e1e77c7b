// docs/PROTECTING.md, "A guest with a disk, step by step": its commands, as they stand there, by somebody who has a disk that
// boots (guest/counting-disk.asm: it counts in its second sector, and tells each number when it is written).

import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, copyFile, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { Cleanup } from '../../../support/cleanup.js';
import { freePorts } from '../../../support/ports.js';
import { until } from '../../../support/until.js';
import { successiveTicksOf } from '../../support.js';
import { needQemu } from '../support.js';
import { MIB, needQemuTools, qemuImg } from './support.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../../../../', import.meta.url));
const romulus = join(root, 'dist/src/cli/main.js');
const BOOT = join(root, 'test/hypervisor/qemu/disks/guest/counting-disk.bin');
const PATIENCE_MS = 60_000;
/** Between two things that happen to it. */
const TICKS = 5;
const LOST_TICKS_MAX = 20;

interface Terminal {
  said: string;
  readonly process: ChildProcess;
}

/** Who types the commands, in a directory of theirs. */
class Reader {
  readonly directory: string;
  /** What the agents log. */
  log = '';
  readonly #cleanup: Cleanup;
  readonly #commands: readonly string[];
  readonly #groups: number[] = [];
  #next = 0;

  static async begin(cleanup: Cleanup): Promise<Reader> {
    const document = await readFile(join(root, 'docs/PROTECTING.md'), 'utf8');
    const chapter = document.split(/^## /m).find((one) => one.startsWith('A guest with a disk')) ?? '';
    const ports = await freePorts(2);
    const commands = [...chapter.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, text = '']) =>
      text.replace('7300', String(ports[0])).replace('7301', String(ports[1])),
    );
    const reader = new Reader(await cleanup.directory(), cleanup, commands);
    // What is installed already; this checkout; and nobody's processes but these.
    await reader.#tool('apt-get', 'exit 0');
    await reader.#tool('npx', `shift; exec ${process.execPath} ${romulus} "$@"`);
    return reader;
  }

  private constructor(directory: string, cleanup: Cleanup, commands: readonly string[]) {
    this.directory = directory;
    this.#cleanup = cleanup;
    this.#commands = commands;
  }

  async #tool(name: string, script: string): Promise<void> {
    await writeFile(join(this.directory, name), `#!/bin/sh\n${script}\n`);
    await chmod(join(this.directory, name), 0o755);
  }

  get #where() {
    const { directory } = this;
    const env = { ...process.env, HOME: directory, PATH: `${directory}:${process.env['PATH'] ?? ''}` };
    delete (env as NodeJS.ProcessEnv)['XDG_STATE_HOME'];
    return { cwd: directory, env };
  }

  #take(expected: string): string {
    const text = this.#commands[this.#next++] ?? '';
    expect(text).to.include(expected);
    return text;
  }

  /** The next commands, which end by themselves. */
  async types(expected: string): Promise<string> {
    return this.#run(this.#take(expected));
  }

  async #run(text: string): Promise<string> {
    const { stdout } = await run('sh', ['-euc', text], this.#where);
    return stdout;
  }

  /** The next command, in a terminal of its own. */
  async opens(expected: string): Promise<Terminal> {
    return this.opensAgain(this.#take(expected));
  }

  async opensAgain(text: string): Promise<Terminal> {
    const child = spawn('sh', ['-euc', `exec ${text}`], {
      ...this.#where,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const terminal: Terminal = { said: '', process: child };
    child.stdout.on('data', (bytes: Buffer) => (terminal.said += bytes.toString()));
    child.stderr.on('data', (bytes: Buffer) => (this.log += bytes.toString()));
    const closed = once(child, 'close');
    this.#groups.push(child.pid ?? 0);
    await this.#tool('pgrep', `exec /usr/bin/pgrep -g ${this.#groups.join(',')} "$@"`);
    this.#cleanup.add(async () => {
      child.kill();
      await closed;
    });
    return terminal;
  }

  /** Again and again, until it says so. */
  async untilItSays(what: string, text: string): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    for (let said = ''; !said.includes(what);) {
      if (performance.now() > deadline) throw new Error(`it does not say ${what}: ${said}`);
      said = await this.#run(text).catch(String);
    }
  }
}

const ticksIn = ({ said }: Terminal) => said.match(/tick \d+ ok\r?\n/g)?.length ?? 0;

async function ticksOn(terminal: Terminal): Promise<void> {
  const before = ticksIn(terminal);
  await until('the guest ticks', () => ticksIn(terminal) >= before + TICKS, PATIENCE_MS);
}

describe('docs: a guest with a disk, step by step', function () {
  this.timeout(4 * PATIENCE_MS);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  let reader: Reader | null = null;
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') console.log(reader?.log);
    await cleanup.run();
  });

  it('is protected, goes on at the other host, and comes home', async () => {
    reader = await Reader.begin(cleanup);
    const disk = join(reader.directory, 'disk');
    await copyFile(BOOT, disk);
    await truncate(disk, 64 * MIB);
    await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', disk, join(reader.directory, 'web.qcow2'));

    await reader.types('web.yaml');
    const first = await reader.opens('--host alpha');
    await ticksOn(first);
    const beta = await reader.opens('--host beta');
    const status = 'npx romulus status --config web.yaml --host alpha\n';
    await reader.types(status).catch(String); // it may not be protected yet
    await reader.untilItSays('replicating', status);
    await ticksOn(first);
    await reader.types('kill -9');
    await ticksOn(beta);
    const again = await reader.opensAgain('npx romulus agent --config web.yaml --host alpha');
    await reader.untilItSays('replicating', status);
    await ticksOn(beta);
    await reader.types('switchover');
    await ticksOn(again);

    const killed = successiveTicksOf(first.said);
    expect(killed[0]).to.equal(1);
    const survived = successiveTicksOf(beta.said + again.said);
    // Nothing is said twice; what was committed last may not have been let out when alpha died (LIMITS).
    const next = killed.length + 1;
    expect(survived[0]).to.be.within(next, next + LOST_TICKS_MAX);
  });
});
