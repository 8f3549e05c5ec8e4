import { defineConfig } from 'vite';

/** Where `vite` and `vite preview` find the streamer; `make demo` serves the built pages from the streamer itself. */
const streamer = process.env['HEADWATER_URL'] ?? 'http://127.0.0.1:4000';

export default defineConfig({
  base: './',
  build: {
    rollupOptions: {
      // Two pages: the app, and a plain one that reads the same table with ElectricSQL's client.
      input: ['index.html', 'shapes.html'],
      // The generated hooks say 'use client' for servers that render; a bundle needs no telling.
      onwarn: (warning, warn) => {
        if (warning.code !== 'MODULE_LEVEL_DIRECTIVE') warn(warning);
      },
    },
  },
  server: { proxy: { '/api': streamer, '/v1': streamer } },
});
