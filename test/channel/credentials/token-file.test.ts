// The file of the token: made once, by whoever comes first, for its owner alone.

import { fork } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { CredentialsError } from '../../../src/channel/credentials/token-file.js';
import { defaultTokenFile, readToken } from '../../../src/channel/credentials/token-file.js';
import { Cleanup } from '../../support/cleanup.js';

function errorOf(run: () => unknown): CredentialsError {
  try {
    run();
  } catch (error) {
    if (error instanceof CredentialsError) return error;
    throw error;
  }
  throw new Error('it was taken');
}

/** This file as a process: reads the token when it is told to. */
if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  process.once('message', (file) => {
    process.send?.(readToken(String(file)).secret);
    process.disconnect();
  });
  process.send?.('here');
} else {
  describe('channel/credentials/token-file', () => {
    const cleanup = new Cleanup();
    afterEach(() => cleanup.run());

    it('is made where it is not: 64 digits, for its owner alone', async () => {
      const file = path.join(await cleanup.directory(), 'state', 'romulus', 'token');
      const before = process.umask(0);
      cleanup.add(() => process.umask(before));
      const { secret } = readToken(file);
      expect(secret).to.match(/^[0-9a-f]{64}$/);
      expect(statSync(file).mode & 0o777).to.equal(0o600);
      expect(statSync(path.dirname(file)).mode & 0o777).to.equal(0o700);
      expect(readToken(file)).to.deep.equal({ secret, file });
      expect(readdirSync(path.dirname(file))).to.deep.equal(['token']);
    });

    it('processes that come at once have the same', async () => {
      const file = path.join(await cleanup.directory(), 'state', 'token');
      const here: Promise<unknown>[] = [];
      const children = Array.from({ length: 4 }, () => {
        const child = fork(fileURLToPath(import.meta.url));
        cleanup.add(() => child.kill());
        here.push(new Promise((resolve) => child.once('message', resolve)));
        return child;
      });
      await Promise.all(here);
      const secrets = await Promise.all(
        children.map((child) => {
          const said = new Promise((resolve) => child.once('message', resolve));
          child.send(file);
          return said;
        }),
      );
      expect(new Set(secrets)).to.deep.equal(new Set([readFileSync(file, 'utf8').trim()]));
    });

    it('one that others can read, of another user, too short, too long, no file: not taken, and why', async () => {
      const directory = await cleanup.directory();
      const put = (name: string, text: string, mode = 0o600): string => {
        const file = path.join(directory, name);
        writeFileSync(file, text);
        chmodSync(file, mode);
        return file;
      };
      const good = 'x'.repeat(64);
      expect(readToken(put('good', good)).secret).to.equal(good);
      const refused: [string, RegExp][] = [
        [put('group', good, 0o640), /read by others \(mode 640\)/],
        [put('world', good, 0o604), /read by others/],
        [put('short', 'secret'), /32 to 1024/],
        [put('long', 'x'.repeat(5000)), /too large/],
        [put('empty', ''), /32 to 1024/],
      ];
      if (process.geteuid?.() === 0) {
        const file = put('others', good);
        chownSync(file, 12345, 12345);
        refused.push([file, /belongs to user 12345/]);
      }
      mkdirSync(path.join(directory, 'directory'));
      refused.push([path.join(directory, 'directory'), /is not a file/]);
      symlinkSync('/dev/zero', path.join(directory, 'zero'));
      refused.push([path.join(directory, 'zero'), /is not a file/]);
      refused.push(['/dev/null/token', /"token" in the configuration names another file/]);
      for (const [file, why] of refused) {
        const error = errorOf(() => readToken(file));
        expect(error.code, file).to.equal('BAD_TOKEN');
        expect(error.message, file).to.match(why);
        expect(error.facts, file).to.deep.equal({ file });
      }
    });

    it('stands in the state of the user', () => {
      const before = process.env['XDG_STATE_HOME'];
      cleanup.add(() => (process.env['XDG_STATE_HOME'] = before));
      process.env['XDG_STATE_HOME'] = '/state';
      expect(defaultTokenFile()).to.equal('/state/romulus/token');
      process.env['XDG_STATE_HOME'] = 'relative';
      expect(defaultTokenFile()).to.match(/^\/.*\/\.local\/state\/romulus\/token$/);
    });
  });
}
