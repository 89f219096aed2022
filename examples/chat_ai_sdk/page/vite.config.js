import { defineConfig } from "vite";

// The page and the gateway have one origin, so that CORS needs no settings: the proxy keeps the Host header.
const gateway = process.env.WAKELINE ?? "http://127.0.0.1:7777";

// Without this a gateway that dies in the middle of an answer would leave the page waiting for the rest.
const endWithGateway = (proxy) =>
  proxy.on("proxyRes", (answer, _, response) => {
    answer.on("close", () => answer.complete || response.destroy());
  });

export default defineConfig({
  esbuild: { jsx: "automatic" },
  server: { proxy: { "/v1": { target: gateway, changeOrigin: false, configure: endWithGateway } } },
});
